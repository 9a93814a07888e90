/*
 * The clients of Apache Kafka's Java library: an idempotent producer and the members of a group, each with its ledger.
 *
 *   Load BOOTSTRAP DIRECTORY TOPIC PARTITIONS PRODUCER GROUP MEMBERS PAUSE_MS BURST SEED [key=value]...
 *
 * Settings are the producer's. The lines of a ledger and the commands on stdin (`stop`, `end`) are those of ledger.py and load.py.
 */

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Load {
    private static volatile boolean stop;
    private static volatile boolean end;

    private static final class Book {
        private final FileChannel file;

        Book(String directory, String name, String... header) throws IOException {
            file = FileChannel.open(Paths.get(directory, name + ".ledger"), StandardOpenOption.CREATE,
                StandardOpenOption.WRITE, StandardOpenOption.APPEND);
            write((Object[]) header);
        }

        synchronized void write(Object... fields) {
            StringBuilder line = new StringBuilder();
            for (Object field : fields) {
                line.append(line.length() == 0 ? "" : "\t").append(field);
            }
            ByteBuffer bytes = ByteBuffer.wrap(line.append('\n').toString().getBytes(StandardCharsets.UTF_8));
            try {
                while (bytes.hasRemaining()) {
                    file.write(bytes);
                }
            } catch (IOException broken) {
                broken.printStackTrace();
                Runtime.getRuntime().halt(3);
            }
        }
    }

    private static String crc(byte[] bytes, int count) {
        CRC32 crc = new CRC32();
        crc.update(bytes, 0, count);
        return String.format("%08x", crc.getValue());
    }

    private static byte[] payload(String producer, int counter, int size) {
        byte[] head = (producer + "|" + counter + "|" + size + "|").getBytes(StandardCharsets.UTF_8);
        byte[] value = new byte[Math.max(size, head.length + 8)];
        for (int i = 0; i < value.length; i++) {
            value[i] = (byte) ('a' + (i * 31 + counter) % 26);
        }
        System.arraycopy(head, 0, value, 0, head.length);
        System.arraycopy(crc(value, value.length - 8).getBytes(StandardCharsets.UTF_8), 0, value, value.length - 8, 8);
        return value;
    }

    private static String read(byte[] value) {
        String[] parts = new String(value, 0, Math.min(value.length, 200), StandardCharsets.ISO_8859_1).split("\\|", 4);
        if (parts.length < 4) {
            return "?\t-1\tnot a payload";
        }
        String tail = new String(value, value.length - 8, 8, StandardCharsets.ISO_8859_1);
        return parts[0] + "\t" + parts[1] + "\t" + (tail.equals(crc(value, value.length - 8)) ? "ok" : "wrong CRC");
    }

    private static int size(Random random) {
        double dice = random.nextDouble();
        return dice < 0.9 ? 1 + random.nextInt(300) : dice < 0.99 ? 300 + random.nextInt(4700) : 5000 + random.nextInt(35000);
    }

    private static Properties common(String bootstrap) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("reconnect.backoff.ms", "30");
        settings.put("reconnect.backoff.max.ms", "400");
        settings.put("retry.backoff.ms", "50");
        settings.put("metadata.max.age.ms", "5000");
        settings.put("socket.connection.setup.timeout.ms", "2000");
        return settings;
    }

    private static void produce(String[] words) throws Exception {
        String name = words[4];
        Book book = new Book(words[1], name, "producer", name, words[2], "java");
        Properties settings = common(words[0]);
        settings.put("acks", "all");
        settings.put("enable.idempotence", "true");
        settings.put("delivery.timeout.ms", String.valueOf(Integer.MAX_VALUE));
        settings.put("max.block.ms", String.valueOf(Integer.MAX_VALUE));
        settings.put("request.timeout.ms", "3000");
        settings.put("linger.ms", "2");
        for (int i = 10; i < words.length; i++) {
            int equals = words[i].indexOf('=');
            settings.put(words[i].substring(0, equals), words[i].substring(equals + 1));
        }
        Random random = new Random(Long.parseLong(words[9]));
        int partitions = Integer.parseInt(words[3]);
        AtomicInteger open = new AtomicInteger();
        int counter = 0;
        byte[] key = name.getBytes(StandardCharsets.UTF_8);
        try (KafkaProducer<byte[], byte[]> producer =
                 new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            while (!stop) {
                for (int left = open.get() < 400 ? 1 + random.nextInt(Integer.parseInt(words[8])) : 0; left > 0; left--) {
                    int number = ++counter;
                    int length = size(random);
                    long now = System.currentTimeMillis();
                    ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(words[2], random.nextInt(partitions), now,
                        key, payload(name, number, length));
                    record.headers().add("n", String.valueOf(number).getBytes(StandardCharsets.UTF_8));
                    book.write("i", number, record.partition(), now, length);
                    open.incrementAndGet();
                    producer.send(record, (metadata, error) -> {
                        open.decrementAndGet();
                        if (error == null) {
                            book.write("a", number, metadata.offset(), System.currentTimeMillis());
                        } else {
                            book.write(error instanceof RecordTooLargeException ? "f" : "u", number,
                                String.valueOf(error).replace('\t', ' ').replace('\n', ' '));
                        }
                    });
                }
                Thread.sleep(Long.parseLong(words[7]));
            }
            producer.flush();
        } catch (KafkaException error) {
            book.write("x", String.valueOf(error).replace('\t', ' ').replace('\n', ' '));
        }
    }

    private static void consume(String[] words, String name) throws Exception {
        Book book = new Book(words[1], name, "consumer", name, words[5], "java");
        Properties settings = common(words[0]);
        settings.put("group.id", words[5]);
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "earliest");
        settings.put("session.timeout.ms", "4000");
        settings.put("heartbeat.interval.ms", "700");
        settings.put("request.timeout.ms", "5000");
        settings.put("default.api.timeout.ms", "8000");
        settings.put("fetch.max.wait.ms", "200");
        try (KafkaConsumer<byte[], byte[]> consumer =
                 new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(Collections.singletonList(words[2]), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) { }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    for (int attempt = 0; attempt < 10 && !partitions.isEmpty(); attempt++) {
                        long now = System.currentTimeMillis();
                        try {
                            Map<TopicPartition, OffsetAndMetadata> known = consumer.committed(new HashSet<>(partitions));
                            for (TopicPartition one : partitions) {
                                OffsetAndMetadata offset = known.get(one);
                                book.write("s", one.topic(), one.partition(), offset == null ? -1 : offset.offset(), now);
                            }
                            return;
                        } catch (KafkaException again) {
                            continue; // asked anew; the consumer itself asks too, and reads on from there
                        }
                    }
                }
            });
            long due = System.currentTimeMillis();
            while (!end) {
                try {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                        book.write("r", record.topic(), record.partition(), record.offset(), read(record.value()));
                    }
                    if (System.currentTimeMillis() > due) {
                        due = System.currentTimeMillis() + 400;
                        Map<TopicPartition, OffsetAndMetadata> positions = new java.util.HashMap<>();
                        for (TopicPartition one : consumer.assignment()) {
                            positions.put(one, new OffsetAndMetadata(consumer.position(one)));
                        }
                        consumer.commitSync(positions, Duration.ofMillis(5000));
                        for (Map.Entry<TopicPartition, OffsetAndMetadata> one : positions.entrySet()) {
                            book.write("c", one.getKey().topic(), one.getKey().partition(), one.getValue().offset(),
                                System.currentTimeMillis());
                        }
                    }
                } catch (KafkaException again) {
                    System.err.println(name + ": " + again); // no answer in time, or no member any more: it goes on
                }
            }
        }
    }

    private interface Work {
        void run() throws Exception;
    }

    private static Thread begin(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (Throwable thrown) {
                thrown.printStackTrace();
                Runtime.getRuntime().halt(2);
            }
        });
        thread.start();
        return thread;
    }

    public static void main(String[] words) throws Exception {
        List<Thread> threads = new ArrayList<>();
        threads.add(begin(() -> produce(words)));
        for (int i = 0; i < Integer.parseInt(words[6]); i++) {
            String name = words[5] + "-" + i;
            threads.add(begin(() -> consume(words, name)));
        }
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null && !line.equals("end"); line = commands.readLine()) {
            stop = stop || line.equals("stop");
        }
        stop = true;
        end = true;
        for (Thread thread : threads) {
            thread.join(20_000);
        }
        Runtime.getRuntime().halt(0);
    }
}
