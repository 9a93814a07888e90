// What the tests do with kafkajs: the commands, answers and file format of Driver.java.
//
//   node driver.js NODE_MODULES BOOTSTRAP < commands
//
//   produce TOPIC FILE compression.type=none|gzip|snappy|lz4 [enable.idempotence=true]
//   consume TOPIC COUNT FILE group.id=GROUP
//   admin TOPIC

"use strict";

const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const [modules, bootstrap] = process.argv.slice(2);
// The lz4 codec takes a `fetch` for a browser's and then cannot load its file.
delete globalThis.fetch;
const load = (name) => require(path.join(modules, name));
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = load("kafkajs");

CompressionCodecs[CompressionTypes.Snappy] = load("kafkajs-snappy");
const LZ4 = load("kafkajs-lz4");
CompressionCodecs[CompressionTypes.LZ4] = new (LZ4.default || LZ4)().codec;
const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
};

const kafka = new Kafka({ clientId: "milena-tests", brokers: [bootstrap], logLevel: logLevel.ERROR, retry: { retries: 8 } });

const decoded = (text) => (text === "-" ? null : Buffer.from(text, "base64"));
const encoded = (bytes) => (bytes === null || bytes === undefined ? "-" : Buffer.from(bytes).toString("base64"));
const settings = (words) => Object.fromEntries(words.map((word) => word.split(/=(.*)/s)));

function message(line) {
  const [partition, , timestamp, key, value, marks] = line.split("\t");
  const headers = {};
  for (const mark of marks ? marks.split(";") : []) {
    const [name, data] = mark.split(":");
    const values = headers[name] || (headers[name] = []);
    values.push(decoded(data));
  }
  for (const name of Object.keys(headers)) {
    if (headers[name].length === 1) headers[name] = headers[name][0];
  }
  return { partition: Number(partition), timestamp, key: decoded(key), value: decoded(value), headers };
}

async function produce(topic, file, ...words) {
  const wanted = settings(words);
  const idempotent = wanted["enable.idempotence"] === "true";
  const producer = kafka.producer({ idempotent, maxInFlightRequests: idempotent ? 1 : 5 });
  await producer.connect();
  const lines = fs.readFileSync(file, "utf8").split("\n").filter((line) => line);
  // A request a record, so that each ack belongs to one record.
  for (const line of lines) {
    const compression = CODECS[wanted["compression.type"] || "none"];
    const [ack] = await producer.send({ topic, acks: -1, compression, messages: [message(line)] });
    console.log(`${ack.partition} ${ack.baseOffset}`);
  }
  await producer.disconnect();
}

async function consume(topic, count, file, ...words) {
  const groupId = settings(words)["group.id"];
  const consumer = kafka.consumer({ groupId, maxBytesPerPartition: 6000000 });
  const lines = [];
  const next = new Map();
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`got ${lines.length} of ${count} records in 60 s`)), 60000);
    consumer.on(consumer.events.CRASH, (event) => reject(event.payload.error));
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        const marks = Object.entries(message.headers || {}).flatMap(([name, data]) =>
          (Array.isArray(data) ? data : [data]).map((one) => `${name}:${encoded(one)}`));
        const hash = message.value === null ? "-"
          : `${message.value.length}:${crypto.createHash("sha256").update(message.value).digest("hex")}`;
        lines.push([partition, message.offset, message.timestamp, encoded(message.key), hash, marks.join(";")].join("\t"));
        next.set(partition, String(BigInt(message.offset) + 1n));
        if (lines.length === Number(count)) {
          clearTimeout(timer);
          resolve();
        }
      },
    }).catch(reject);
  });
  await consumer.commitOffsets([...next].map(([partition, offset]) => ({ topic, partition, offset, metadata: "by node" })));
  await consumer.disconnect();
  fs.writeFileSync(file, lines.map((line) => line + "\n").join(""));
  const admin = kafka.admin();
  await admin.connect();
  const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] });
  await admin.disconnect();
  for (const { partition, offset, metadata } of partitions) {
    if (next.has(partition) && (next.get(partition) !== offset || metadata !== "by node")) {
      throw new Error(`partition ${partition}: committed ${next.get(partition)}, read back ${offset} ${metadata}`);
    }
  }
}

async function admin(topic) {
  const admin = kafka.admin();
  await admin.connect();
  const wanted = { topic, numPartitions: 2, replicationFactor: 1, configEntries: [{ name: "max.message.bytes", value: "2000000" }] };
  console.log(`created=${await admin.createTopics({ topics: [wanted] })}`);
  console.log(`again=${await admin.createTopics({ topics: [wanted] })}`);
  const cluster = await admin.describeCluster();
  console.log(`nodes=${cluster.brokers.length}`);
  console.log(`controller=${cluster.controller}`);
  console.log(`listed=${(await admin.listTopics()).includes(topic)}`);
  const { topics: [described] } = await admin.fetchTopicMetadata({ topics: [topic] });
  console.log(`partitions=${described.partitions.length}`);
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
  await admin.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: "retention.ms", value: "123456" }] }] });
  const { resources: [{ configEntries }] } = await admin.describeConfigs({ resources: [resource] });
  const value = (name) => configEntries.find((entry) => entry.configName === name).configValue;
  console.log(`retention.ms=${value("retention.ms")}`);
  console.log(`max.message.bytes=${value("max.message.bytes")}`);
  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] });
  const offsets = await admin.fetchTopicOffsets(topic);
  console.log(`widened=${offsets.length}`);
  await admin.deleteTopics({ topics: [topic] });
  let there = true;
  for (let i = 0; i < 100 && there; i++) there = (await admin.listTopics()).includes(topic);
  console.log(`deleted=${!there}`);
  await admin.disconnect();
}

async function main() {
  const commands = { produce, consume, admin };
  for (const line of fs.readFileSync(0, "utf8").split("\n").filter((line) => line)) {
    const [name, ...words] = line.split("\t");
    try {
      await commands[name](...words);
      console.log("ok");
    } catch (error) {
      console.error(error);
      console.log(`failed: ${error.message}`);
    }
  }
}

main();
