/*
 * What Apache Kafka's own classes make of bytes: the judge of the differential test in fuzz/examples/differential.
 *
 * Reads cases from stdin, each `size i32 | kind i8 | bytes`, and answers each with `size i32 | text in UTF-8`:
 *
 *   1 a request frame               5 a consumer's assignment
 *   2 key i16, version i16, answer  6 a key of __consumer_offsets
 *   3 batches                       7 a committed offset
 *   4 a consumer's subscription     8 the metadata of a group
 *
 * A text is the fields as they were read, by the names of the protocol: {name=value ...}, [element ...], integers and booleans
 * as they are, - for null, "hexadecimal" for a string in UTF-8, xHEXADECIMAL for bytes. What is refused is !, behind that the
 * step that refused it and the name of the exception. A tagged field that says nothing (null, empty, all of it -1 or 0) is left out.
 */

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import kafka.common.OffsetAndMetadata;
import kafka.coordinator.group.BaseKey;
import kafka.coordinator.group.GroupMetadata;
import kafka.coordinator.group.GroupMetadataKey;
import kafka.coordinator.group.GroupMetadataManager;
import kafka.coordinator.group.MemberMetadata;
import kafka.coordinator.group.OffsetKey;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Assignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.RawTaggedField;
import org.apache.kafka.common.protocol.types.Struct;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.record.AbstractLegacyRecordBatch;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MutableRecordBatch;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.requests.AbstractRequest;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.common.utils.Time;
import scala.Option;

public final class Judge {
    private static final char[] DIGITS = "0123456789abcdef".toCharArray();
    private static StringBuilder out;

    public static void main(String[] words) throws IOException {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in, 1 << 16));
        DataOutputStream answers = new DataOutputStream(new BufferedOutputStream(System.out, 1 << 16));
        while (true) {
            if (in.available() == 0) {
                answers.flush();
            }
            int size;
            try {
                size = in.readInt();
            } catch (EOFException end) {
                break;
            }
            byte kind = in.readByte();
            byte[] bytes = new byte[size - 1];
            in.readFully(bytes);
            byte[] text = answer(kind, ByteBuffer.wrap(bytes)).getBytes(StandardCharsets.UTF_8);
            answers.writeInt(text.length);
            answers.write(text);
        }
        answers.flush();
    }

    private static String answer(byte kind, ByteBuffer bytes) {
        out = new StringBuilder();
        try {
            switch (kind) {
                case 1: request(bytes); break;
                case 2: response(bytes); break;
                case 3: batches(bytes); break;
                case 4: subscription(ConsumerProtocol.deserializeSubscription(bytes)); break;
                case 5: assignment(ConsumerProtocol.deserializeAssignment(bytes)); break;
                case 6: recordKey(GroupMetadataManager.readMessageKey(bytes)); break;
                case 7: committedOffset(GroupMetadataManager.readOffsetMessageValue(bytes)); break;
                case 8: group(GroupMetadataManager.readGroupMessageValue("g", bytes, Time.SYSTEM)); break;
                default: throw new IllegalArgumentException("kind " + kind);
            }
            return out.toString();
        } catch (Throwable refused) {
            return "!read " + refused.getClass().getSimpleName();
        }
    }

    private static void request(ByteBuffer frame) {
        RequestHeader header;
        try {
            header = RequestHeader.parse(frame);
        } catch (Throwable refused) {
            out.append("!header ").append(refused.getClass().getSimpleName());
            return;
        }
        out.append("{key=").append(header.apiKey().id).append(" version=").append(header.apiVersion())
            .append(" correlation_id=").append(header.correlationId()).append(" client_id=");
        value(header.clientId());
        out.append("} ");
        if (header.apiKey() == ApiKeys.API_VERSIONS && !ApiKeys.API_VERSIONS.isVersionSupported(header.apiVersion())) {
            out.append("unsupported");
            return;
        }
        Struct body = header.apiKey().parseRequest(header.apiVersion(), frame);
        value(body);
        try {
            AbstractRequest.parseRequest(header.apiKey(), header.apiVersion(), body);
        } catch (Throwable refused) {
            out.append(" !meaning ").append(refused.getClass().getSimpleName());
        }
    }

    private static void response(ByteBuffer bytes) {
        ApiKeys key = ApiKeys.forId(bytes.getShort());
        short version = bytes.getShort();
        Struct body = key.responseSchema(version).read(bytes);
        value(body);
        try {
            AbstractResponse.parseResponse(key, body, version);
        } catch (Throwable refused) {
            out.append(" !meaning ").append(refused.getClass().getSimpleName());
        }
    }

    private static void batches(ByteBuffer bytes) {
        Iterator<MutableRecordBatch> batches = MemoryRecords.readableRecords(bytes).batches().iterator();
        while (true) {
            MutableRecordBatch batch;
            try {
                if (!batches.hasNext()) {
                    return;
                }
                batch = batches.next();
            } catch (Throwable refused) {
                out.append("!batch ").append(refused.getClass().getSimpleName());
                return;
            }
            int start = out.length();
            try {
                batch(batch);
            } catch (Throwable refused) {
                out.setLength(start);
                out.append("!header ").append(refused.getClass().getSimpleName()).append('\n');
                continue;
            }
            start = out.length();
            try {
                for (Record record : batch) {
                    record(record);
                }
            } catch (Throwable refused) {
                out.setLength(start);
                out.append(" !records ").append(refused.getClass().getSimpleName());
            }
            out.append('\n');
        }
    }

    private static void batch(MutableRecordBatch batch) {
        boolean isLegacy = batch instanceof AbstractLegacyRecordBatch;
        boolean isValid;
        try {
            isValid = batch.isValid();
        } catch (Throwable refused) {
            isValid = false;
        }
        out.append("{magic=").append(batch.magic()).append(" size=").append(batch.sizeInBytes());
        if (!isLegacy) {
            out.append(" base=").append(batch.baseOffset());
        }
        out.append(" last=").append(batch.lastOffset()).append(" next=").append(batch.nextOffset())
            .append(" valid=").append(isValid).append(" codec=").append(batch.compressionType().name)
            .append(" time_type=").append(batch.timestampType().name).append(" max_timestamp=").append(batch.maxTimestamp());
        if (!isLegacy) {
            // What is negative is not there, and who has no id has neither epoch nor sequence.
            boolean isStamped = batch.hasProducerId();
            out.append(" producer=").append(isStamped ? batch.producerId() : -1)
                .append(' ').append(isStamped ? batch.producerEpoch() : -1)
                .append(' ').append(isStamped ? Math.max(batch.baseSequence(), -1) : -1)
                .append(" transactional=").append(batch.isTransactional()).append(" control=").append(batch.isControlBatch())
                .append(" epoch=").append(Math.max(batch.partitionLeaderEpoch(), -1))
                .append(" count=").append(batch.countOrNull());
        }
        out.append('}');
    }

    private static void record(Record record) {
        out.append(" (").append(record.offset()).append(' ').append(record.timestamp()).append(' ');
        value(record.key());
        out.append(' ');
        value(record.value());
        for (Header header : record.headers()) {
            out.append(' ');
            value(header.key());
            out.append(':');
            value(header.value() == null ? null : ByteBuffer.wrap(header.value()));
        }
        out.append(')');
    }

    private static void subscription(Subscription subscription) {
        out.append("{topics=");
        value(subscription.topics().toArray());
        out.append(" user_data=");
        value(subscription.userData());
        partitions(" owned=[", subscription.ownedPartitions());
    }

    private static void assignment(Assignment assignment) {
        out.append("{user_data=");
        value(assignment.userData());
        partitions(" assigned=[", assignment.partitions());
    }

    private static void partitions(String name, List<TopicPartition> partitions) {
        out.append(name);
        for (TopicPartition partition : partitions) {
            value(partition.topic());
            out.append('-').append(partition.partition()).append(' ');
        }
        out.append("]}");
    }

    private static void recordKey(BaseKey key) {
        if (key instanceof OffsetKey) {
            out.append("offset ");
            value(((OffsetKey) key).key().group());
            out.append(' ');
            value(((OffsetKey) key).key().topicPartition().topic());
            out.append(' ').append(((OffsetKey) key).key().topicPartition().partition());
        } else {
            out.append("group ");
            value(((GroupMetadataKey) key).key());
        }
    }

    private static void committedOffset(OffsetAndMetadata offset) {
        out.append(offset.offset()).append(' ').append(offset.leaderEpoch().orElse(-1)).append(' ');
        value(offset.metadata());
        out.append(' ').append(offset.commitTimestamp()).append(' ')
            .append(offset.expireTimestamp().isEmpty() ? "-" : offset.expireTimestamp().get().toString());
    }

    private static void group(GroupMetadata group) {
        out.append("{type=");
        option(group.protocolType());
        out.append(" generation=").append(group.generationId()).append(" protocol=");
        option(group.protocolName());
        out.append(" leader=");
        value(group.leaderOrNull());
        out.append(" since=").append(group.currentStateTimestamp().isEmpty() ? "-" : group.currentStateTimestamp().get().toString());
        // A map in no order: by the id.
        List<String> members = new ArrayList<>();
        scala.collection.Iterator<MemberMetadata> all = group.allMemberMetadata().iterator();
        while (all.hasNext()) {
            members.add(member(all.next(), group));
        }
        members.sort(null);
        out.append(" members=").append(String.join("", members)).append('}');
    }

    private static String member(MemberMetadata member, GroupMetadata group) {
        StringBuilder outer = out;
        out = new StringBuilder(" (");
        value(member.memberId());
        out.append(' ');
        option(member.groupInstanceId());
        out.append(' ');
        value(member.clientId());
        out.append(' ');
        value(member.clientHost());
        out.append(' ').append(member.rebalanceTimeoutMs()).append(' ').append(member.sessionTimeoutMs()).append(' ');
        String protocol = group.protocolName().isEmpty() ? null : group.protocolName().get();
        value(ByteBuffer.wrap(member.metadata(protocol)));
        out.append(' ');
        value(ByteBuffer.wrap(member.assignment()));
        String text = out.append(')').toString();
        out = outer;
        return text;
    }

    private static void option(Option<String> option) {
        value(option.isEmpty() ? null : option.get());
    }

    private static void value(Object value) {
        if (value == null) {
            out.append('-');
        } else if (value instanceof Struct) {
            fields((Struct) value);
        } else if (value instanceof Object[]) {
            out.append('[');
            String separator = "";
            for (Object element : (Object[]) value) {
                out.append(separator);
                value(element);
                separator = " ";
            }
            out.append(']');
        } else if (value instanceof String) {
            out.append('"');
            hexadecimal(ByteBuffer.wrap(((String) value).getBytes(StandardCharsets.UTF_8)));
            out.append('"');
        } else if (value instanceof ByteBuffer) {
            out.append('x');
            hexadecimal(((ByteBuffer) value).duplicate());
        } else if (value instanceof MemoryRecords) {
            out.append('x');
            hexadecimal(((MemoryRecords) value).buffer());
        } else {
            out.append(value);
        }
    }

    private static void fields(Struct struct) {
        out.append('{');
        String separator = "";
        for (BoundField field : struct.schema().fields()) {
            if (field.def.type instanceof TaggedFields) {
                tagged((TaggedFields) field.def.type, (Map<?, ?>) struct.get(field), separator);
            } else {
                out.append(separator).append(field.def.name).append('=');
                value(struct.get(field));
            }
            separator = " ";
        }
        out.append('}');
    }

    private static void tagged(TaggedFields type, Map<?, ?> values, String separator) {
        for (Map.Entry<?, ?> entry : values.entrySet()) {
            if (entry.getValue() instanceof RawTaggedField || saysNothing(entry.getValue())) {
                continue;
            }
            Field field = (Field) fieldsOf(type).get(entry.getKey());
            out.append(separator).append(field.name).append('=');
            value(entry.getValue());
            separator = " ";
        }
    }

    private static Map<?, ?> fieldsOf(TaggedFields type) {
        try {
            java.lang.reflect.Field fields = TaggedFields.class.getDeclaredField("fields");
            fields.setAccessible(true);
            return (Map<?, ?>) fields.get(type);
        } catch (ReflectiveOperationException changed) {
            throw new IllegalStateException(changed);
        }
    }

    private static boolean saysNothing(Object value) {
        if (value instanceof Struct) {
            for (BoundField field : ((Struct) value).schema().fields()) {
                if (!(field.def.type instanceof TaggedFields) && !saysNothing(((Struct) value).get(field))) {
                    return false;
                }
            }
            return true;
        }
        return value == null || value instanceof Object[] && ((Object[]) value).length == 0
            || value instanceof Number && (((Number) value).longValue() == -1 || ((Number) value).longValue() == 0);
    }

    private static void hexadecimal(ByteBuffer bytes) {
        while (bytes.hasRemaining()) {
            int next = bytes.get();
            out.append(DIGITS[next >> 4 & 15]).append(DIGITS[next & 15]);
        }
    }
}
