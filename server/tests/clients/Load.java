/*
 * An idempotent producer and a group of two consumers that go on until stdin ends, and tell what they saw, a line each:
 *
 *   acked PARTITION OFFSET NUMBER        the record with this number was acknowledged there
 *   error WHO CLASS yes|no MESSAGE       an error that the client showed; whether a client may simply try again
 *   wrong WHAT                           a consumer got what it should not: a record too many, or one too few
 *   sent COUNT, read COUNT               at the end, when the group has read all that was acknowledged
 *
 * Arguments: bootstrap servers, topic, number of partitions, group, milliseconds between records. Record n goes to partition
 * n modulo their number.
 */

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public final class Load {
    private static final long LAST_WORDS_MS = 60_000;
    private static String bootstrap;
    private static String topic;
    private static String group;
    private static volatile boolean producing = true;
    private static volatile boolean consuming = true;
    /** By partition: what the broker said is committed, what it was asked to commit, and the end of what a consumer was given. */
    private static final Map<TopicPartition, Long> committed = new ConcurrentHashMap<>();
    private static final Map<TopicPartition, Long> asked = new ConcurrentHashMap<>();
    private static final Map<TopicPartition, Long> seen = new ConcurrentHashMap<>();
    private static final Map<TopicPartition, Long> acked = new ConcurrentHashMap<>();
    private static final AtomicLong read = new AtomicLong();

    private static synchronized void say(String line) {
        System.out.println(line);
    }

    private static void error(String who, Throwable thrown) {
        boolean passes = thrown instanceof RetriableException;
        say("error " + who + " " + thrown.getClass().getSimpleName() + " " + (passes ? "yes" : "no") + " " + thrown.getMessage());
    }

    private static void produce(int partitions, long pause) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("enable.idempotence", "true");
        settings.put("acks", "all");
        settings.put("delivery.timeout.ms", Integer.toString(Integer.MAX_VALUE));
        settings.put("linger.ms", "2");
        long number = 0;
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            while (producing) {
                long sent = number++;
                int partition = (int) (sent % partitions);
                producer.send(new ProducerRecord<>(topic, partition, null, Long.toString(sent)), (where, failed) -> {
                    if (failed != null) {
                        error("producer", failed);
                    } else {
                        acked.merge(new TopicPartition(topic, partition), where.offset() + 1, Math::max);
                        say("acked " + partition + " " + where.offset() + " " + sent);
                    }
                });
                Thread.sleep(pause);
            }
            producer.flush();
        } catch (Exception thrown) {
            error("producer", thrown);
        }
        say("sent " + number);
    }

    private static final class Member implements Runnable, ConsumerRebalanceListener {
        private final String name;
        private final KafkaConsumer<String, String> consumer;
        private final Map<TopicPartition, Long> next = new HashMap<>();

        Member(String name) {
            this.name = name;
            Properties settings = new Properties();
            settings.put("bootstrap.servers", bootstrap);
            settings.put("group.id", group);
            settings.put("enable.auto.commit", "false");
            settings.put("auto.offset.reset", "earliest");
            consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            partitions.forEach(next::remove);
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            for (TopicPartition partition : partitions) {
                long position = consumer.position(partition);
                long least = committed.getOrDefault(partition, 0L);
                long most = asked.getOrDefault(partition, 0L);
                if (position < least || position > most) {
                    say("wrong " + name + " begins " + partition + " at " + position + ", committed " + least + " to " + most);
                }
                next.put(partition, position);
            }
        }

        private void poll() {
            Map<TopicPartition, OffsetAndMetadata> done = new HashMap<>();
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                TopicPartition partition = new TopicPartition(record.topic(), record.partition());
                Long expected = next.put(partition, record.offset() + 1);
                if (expected == null || expected != record.offset()) {
                    say("wrong " + name + " got " + partition + " " + record.offset() + " where " + expected + " was next");
                }
                done.put(partition, new OffsetAndMetadata(record.offset() + 1));
                seen.merge(partition, record.offset() + 1, Math::max);
                read.incrementAndGet();
            }
            if (!done.isEmpty()) {
                done.forEach((partition, upto) -> asked.merge(partition, upto.offset(), Math::max));
                consumer.commitSync(done);
                done.forEach((partition, upto) -> committed.merge(partition, upto.offset(), Math::max));
            }
        }

        @Override
        public void run() {
            consumer.subscribe(Collections.singleton(topic), this);
            while (consuming) {
                try {
                    poll();
                } catch (Exception thrown) {
                    error(name, thrown);
                }
            }
            consumer.close();
        }
    }

    public static void main(String[] words) throws Exception {
        bootstrap = words[0];
        topic = words[1];
        group = words[3];
        List<Thread> threads = new ArrayList<>();
        Thread producer = new Thread(() -> produce(Integer.parseInt(words[2]), Long.parseLong(words[4])));
        producer.start();
        for (int number = 0; number < 2; number++) {
            threads.add(new Thread(new Member("consumer-" + number)));
        }
        threads.forEach(Thread::start);
        while (System.in.read() >= 0) {
            // Only the end counts.
        }
        producing = false;
        producer.join();
        long deadline = System.currentTimeMillis() + LAST_WORDS_MS;
        while (!acked.entrySet().stream().allMatch(end -> seen.getOrDefault(end.getKey(), 0L) >= end.getValue())) {
            if (System.currentTimeMillis() > deadline) {
                say("wrong the group has read up to " + seen + ", acknowledged is up to " + acked);
                break;
            }
            Thread.sleep(50);
        }
        consuming = false;
        for (Thread thread : threads) {
            thread.join();
        }
        say("read " + read.get());
    }
}
