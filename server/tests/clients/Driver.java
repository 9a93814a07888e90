/*
 * What the tests do with the Java client, in one program that compiles against every version from 1.1 to 4.x.
 *
 * Reads commands from stdin, a line each with words set apart by tabs, and answers each with lines and then `ok` or `failed: why`:
 *
 *   produce TOPIC FILE [key=value]...          acked records, `partition offset` a line
 *   consume TOPIC COUNT FILE [key=value]...    joins the group of `group.id`, commits, leaves; records go to FILE
 *   read TOPIC FILE [key=value]...             all records from the beginning to the end, without a group;
 *                                              partitions without a leader are named, `topic partition` a line
 *   admin TOPIC                                creates, describes, alters, widens, deletes; facts as `name=value`
 *
 * The file format is that of records.py. Where the client's API changed over time, calls go by reflection.
 */

import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.InputStreamReader;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Driver {
    private static final Base64.Encoder ENCODER = Base64.getEncoder();
    private static final Base64.Decoder DECODER = Base64.getDecoder();
    private static String bootstrap;

    private static Properties settings(String[] words, int from) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        for (int i = from; i < words.length; i++) {
            int equals = words[i].indexOf('=');
            settings.put(words[i].substring(0, equals), words[i].substring(equals + 1));
        }
        return settings;
    }

    private static byte[] decoded(String field) {
        return field.equals("-") ? null : DECODER.decode(field);
    }

    private static String encoded(byte[] bytes) {
        return bytes == null ? "-" : ENCODER.encodeToString(bytes);
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, String line) {
        String[] fields = line.split("\t", -1);
        Headers headers = new RecordHeaders();
        if (!fields[5].isEmpty()) {
            for (String header : fields[5].split(";")) {
                String[] pair = header.split(":", -1);
                headers.add(pair[0], decoded(pair[1]));
            }
        }
        return new ProducerRecord<>(topic, fields[0].equals("-") ? null : Integer.valueOf(fields[0]),
            Long.valueOf(fields[2]), decoded(fields[3]), decoded(fields[4]), headers);
    }

    private static void produce(String[] words) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings(words, 3),
                new ByteArraySerializer(), new ByteArraySerializer());
             BufferedReader lines = Files.newBufferedReader(Paths.get(words[2]))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                sent.add(producer.send(record(words[1], line)));
            }
            producer.flush();
        }
        for (Future<RecordMetadata> future : sent) {
            RecordMetadata ack = future.get();
            System.out.println(ack.partition() + " " + ack.offset());
        }
    }

    @SuppressWarnings("unchecked")
    private static ConsumerRecords<byte[], byte[]> poll(KafkaConsumer<byte[], byte[]> consumer) throws Exception {
        try {
            Class<?> duration = Class.forName("java.time.Duration");
            Method poll = KafkaConsumer.class.getMethod("poll", duration);
            return (ConsumerRecords<byte[], byte[]>) poll.invoke(consumer, java.time.Duration.ofMillis(200));
        } catch (NoSuchMethodException before20) {
            Method poll = KafkaConsumer.class.getMethod("poll", long.class);
            return (ConsumerRecords<byte[], byte[]>) poll.invoke(consumer, 200L);
        }
    }

    private static void consume(String[] words) throws Exception {
        int wanted = Integer.parseInt(words[2]);
        long deadline = System.currentTimeMillis() + 60_000;
        Properties settings = settings(words, 4);
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings,
                new ByteArrayDeserializer(), new ByteArrayDeserializer());
             BufferedWriter out = Files.newBufferedWriter(Paths.get(words[3]))) {
            consumer.subscribe(Collections.singletonList(words[1]));
            int got = 0;
            while (got < wanted) {
                if (System.currentTimeMillis() > deadline) {
                    throw new IllegalStateException("got " + got + " of " + wanted + " records in 60 s");
                }
                for (ConsumerRecord<byte[], byte[]> record : poll(consumer)) {
                    out.write(line(record));
                    next.put(new TopicPartition(record.topic(), record.partition()),
                        new OffsetAndMetadata(record.offset() + 1, "by the driver"));
                    got++;
                }
            }
            consumer.commitSync(next);
            for (Map.Entry<TopicPartition, OffsetAndMetadata> entry : next.entrySet()) {
                Object back = committed(consumer, entry.getKey());
                if (!entry.getValue().equals(back)) {
                    throw new IllegalStateException("committed " + entry + " and read back " + back);
                }
            }
        }
    }

    private static String line(ConsumerRecord<byte[], byte[]> record) throws Exception {
        StringBuilder headers = new StringBuilder();
        for (Header header : record.headers()) {
            headers.append(headers.length() == 0 ? "" : ";").append(header.key()).append(':')
                .append(encoded(header.value()));
        }
        String value = record.value() == null ? "-" : record.value().length + ":" + sha256(record.value());
        return record.partition() + "\t" + record.offset() + "\t" + record.timestamp() + "\t"
            + encoded(record.key()) + "\t" + value + "\t" + headers + "\n";
    }

    private static void read(String[] words) throws Exception {
        long deadline = System.currentTimeMillis() + 60_000;
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings(words, 3),
                new ByteArrayDeserializer(), new ByteArrayDeserializer());
             BufferedWriter out = Files.newBufferedWriter(Paths.get(words[2]))) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (PartitionInfo info : consumer.partitionsFor(words[1])) {
                if (info.leader() == null) {
                    System.out.println(info.topic() + " " + info.partition());
                } else {
                    partitions.add(new TopicPartition(info.topic(), info.partition()));
                }
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                if (System.currentTimeMillis() > deadline) {
                    throw new IllegalStateException("not at the ends " + ends + " after 60 s");
                }
                for (ConsumerRecord<byte[], byte[]> record : poll(consumer)) {
                    out.write(line(record));
                }
            }
        }
    }

    private static Object committed(KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition) throws Exception {
        try {
            Object all = KafkaConsumer.class.getMethod("committed", java.util.Set.class)
                .invoke(consumer, Collections.singleton(partition));
            OffsetAndMetadata read = (OffsetAndMetadata) ((Map<?, ?>) all).get(partition);
            return new OffsetAndMetadata(read.offset(), read.metadata());
        } catch (NoSuchMethodException before24) {
            return KafkaConsumer.class.getMethod("committed", TopicPartition.class).invoke(consumer, partition);
        }
    }

    private static String sha256(byte[] bytes) throws Exception {
        StringBuilder hex = new StringBuilder();
        for (byte one : MessageDigest.getInstance("SHA-256").digest(bytes)) {
            hex.append(String.format("%02x", one));
        }
        return hex.toString();
    }

    /** Calls the first of the named methods that the object has. */
    private static Object call(Object on, Class<?> type, Object argument, String... names) throws Exception {
        for (String name : names) {
            for (Method method : on.getClass().getMethods()) {
                Class<?>[] parameters = method.getParameterTypes();
                boolean fits = argument == null ? parameters.length == 0
                    : parameters.length == 1 && parameters[0] == type;
                if (method.getName().equals(name) && fits) {
                    method.setAccessible(true);
                    return argument == null ? method.invoke(on) : method.invoke(on, argument);
                }
            }
        }
        throw new NoSuchMethodException(String.join(" or ", names));
    }

    private static TopicDescription describe(AdminClient admin, String topic) throws Exception {
        Object result = call(admin, Collection.class, Collections.singleton(topic), "describeTopics");
        Map<?, ?> all = (Map<?, ?>) ((KafkaFuture<?>) call(result, null, null, "allTopicNames", "all")).get();
        return (TopicDescription) all.get(topic);
    }

    private static void alter(AdminClient admin, ConfigResource resource, ConfigEntry entry) throws Exception {
        Object argument;
        String method = "incrementalAlterConfigs";
        try {
            Class<?> op = Class.forName("org.apache.kafka.clients.admin.AlterConfigOp");
            Class<?> type = Class.forName("org.apache.kafka.clients.admin.AlterConfigOp$OpType");
            Object set = type.getMethod("valueOf", String.class).invoke(null, "SET");
            argument = Collections.singletonMap(resource,
                Collections.singleton(op.getConstructor(ConfigEntry.class, type).newInstance(entry, set)));
        } catch (ClassNotFoundException before23) {
            argument = Collections.singletonMap(resource, new Config(Collections.singleton(entry)));
            method = "alterConfigs";
        }
        ((KafkaFuture<?>) call(call(admin, Map.class, argument, method), null, null, "all")).get();
    }

    private static void admin(String[] words) throws Exception {
        String topic = words[1];
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (AdminClient admin = AdminClient.create(settings(words, 2))) {
            NewTopic wanted = new NewTopic(topic, 2, (short) 1)
                .configs(Collections.singletonMap("max.message.bytes", "2000000"));
            admin.createTopics(Collections.singleton(wanted)).all().get();
            System.out.println("nodes=" + admin.describeCluster().nodes().get().size());
            System.out.println("controller=" + admin.describeCluster().controller().get().id());
            System.out.println("listed=" + admin.listTopics().names().get().contains(topic));
            TopicDescription described = describe(admin, topic);
            System.out.println("partitions=" + described.partitions().size());
            System.out.println("leader=" + described.partitions().get(0).leader().id());
            System.out.println("isr=" + described.partitions().get(0).isr().size());
            alter(admin, resource, new ConfigEntry("retention.ms", "123456"));
            Config config = admin.describeConfigs(Collections.singleton(resource)).all().get().get(resource);
            System.out.println("retention.ms=" + config.get("retention.ms").value());
            System.out.println("segment.bytes=" + config.get("segment.bytes").value());
            admin.createPartitions(Collections.singletonMap(topic, NewPartitions.increaseTo(5))).all().get();
            int partitions = 0;
            for (int i = 0; i < 100 && partitions != 5; i++) {
                partitions = describe(admin, topic).partitions().size();
            }
            System.out.println("widened=" + partitions);
            try {
                admin.createTopics(Collections.singleton(wanted)).all().get();
                System.out.println("again=created");
            } catch (java.util.concurrent.ExecutionException refused) {
                System.out.println("again=" + refused.getCause().getClass().getSimpleName());
            }
            admin.deleteTopics(Collections.singleton(topic)).all().get();
            boolean there = true;
            for (int i = 0; i < 100 && there; i++) {
                there = new TreeSet<>(admin.listTopics().names().get()).contains(topic);
            }
            System.out.println("deleted=" + !there);
        }
    }

    public static void main(String[] words) throws Exception {
        bootstrap = words[0];
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] command = line.split("\t");
            try {
                switch (command[0]) {
                    case "produce": produce(command); break;
                    case "consume": consume(command); break;
                    case "read": read(command); break;
                    case "admin": admin(command); break;
                    default: throw new IllegalArgumentException(command[0]);
                }
                System.out.println("ok");
            } catch (Throwable thrown) {
                Throwable cause = thrown;
                while (cause.getCause() != null) {
                    cause = cause.getCause();
                }
                thrown.printStackTrace();
                System.out.println("failed: " + cause);
            }
        }
    }
}
