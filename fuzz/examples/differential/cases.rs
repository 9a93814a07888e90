//! The cases: bytes made up from a seed and a number, so that each can be made again alone.
//!
//! Messages come from their declarations (`generator` of the protocol oracle) and from the corpus, batches, consumer
//! metadata and group records from the corpus; three in four are then spoiled.

use std::fs;
use std::path::Path;

use milena_fuzz::mutate::{Random, mutate};
use milena_fuzz::shaped_batches;
use milena_fuzz::wire::{Side, codec};
use milena_server::protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use milena_server::protocol::schema::{Encoding, StructSchema};
use milena_server::protocol::{RequestHeader, SERVED, Writer, supported_versions};

use crate::generator::generate;

/// What the bytes are; the numbers are those of `Judge.java`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Request = 1,
    Response,
    Batches,
    Subscription,
    Assignment,
    RecordKey,
    CommittedOffset,
    Group,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Cases {
    seed: u64,
    requests: Vec<Vec<u8>>,
    responses: Vec<Vec<u8>>,
    batches: Vec<Vec<u8>>,
    group_records: Vec<Vec<u8>>,
}

fn corpus(target: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        files.push(entry?.path());
    }
    files.sort();
    files.iter().map(fs::read).collect()
}

impl Cases {
    pub(crate) fn new(seed: u64) -> std::io::Result<Cases> {
        Ok(Cases {
            seed,
            requests: corpus("request")?,
            responses: corpus("response")?,
            batches: corpus("record_batch")?,
            group_records: corpus("group_records")?,
        })
    }

    pub(crate) fn case(&self, number: u64) -> Case {
        let mut random =
            Random::new(self.seed.wrapping_mul(0x0100_0000_01b3) ^ number.wrapping_mul(0x9e37_79b9));
        // the first numbers of a small generator are those of its seed
        for _ in 0..4 {
            random.below(2);
        }
        match random.below(20) {
            0..6 => self.request(&mut random),
            6..11 => self.response(&mut random),
            11..17 => self.batches(&mut random),
            17 | 18 => consumer_metadata(&mut random),
            _ => self.group_record(&mut random),
        }
    }

    fn request(&self, random: &mut Random) -> Case {
        let bytes = if random.below(4) == 0 {
            pick(random, &self.requests).clone()
        } else {
            let (api_key, api_version, body) = message(random, Side::Request);
            let client_id = [None, Some(""), Some("client")][random.below(3)];
            let header = RequestHeader {
                api_key,
                api_version,
                correlation_id: random.below(1 << 20) as i32,
                client_id: client_id.map(Into::into),
            };
            let mut writer = Writer::new();
            header.encode(&mut writer).expect("a short client id");
            [writer.as_slice(), &body].concat()
        };
        spoiled(Kind::Request, random, bytes, &self.requests)
    }

    fn response(&self, random: &mut Random) -> Case {
        let (key, version, body) = if random.below(4) == 0 {
            let seed = pick(random, &self.responses);
            let key = SERVED[usize::from(seed[0]) % SERVED.len()];
            let versions = supported_versions(key).expect("it is served");
            let count = versions.end() - versions.start() + 1;
            (
                key,
                versions.start() + i16::from(seed[1]) % count,
                seed[2..].to_vec(),
            )
        } else {
            message(random, Side::Response)
        };
        let mut case = spoiled(Kind::Response, random, body, &self.responses);
        let head = [key.id().to_be_bytes(), version.to_be_bytes()].concat();
        case.bytes.splice(0..0, head);
        case
    }

    fn batches(&self, random: &mut Random) -> Case {
        let mut seed = pick(random, &self.batches).clone();
        if random.below(3) == 0 {
            seed[0] = random.below(256) as u8;
        }
        let mut case = spoiled(Kind::Batches, random, seed.split_off(2), &self.batches);
        case.bytes.splice(0..0, seed);
        case.bytes = shaped_batches(&case.bytes);
        case
    }

    fn group_record(&self, random: &mut Random) -> Case {
        let seed = pick(random, &self.group_records);
        let kind = [Kind::RecordKey, Kind::CommittedOffset, Kind::Group][usize::from(seed[0] % 3)];
        spoiled(kind, random, seed[1..].to_vec(), &self.group_records)
    }
}

fn pick<'a>(random: &mut Random, from: &'a [Vec<u8>]) -> &'a Vec<u8> {
    &from[random.below(from.len())]
}

/// Three in four are changed, some by pieces of others.
fn spoiled(kind: Kind, random: &mut Random, mut bytes: Vec<u8>, others: &[Vec<u8>]) -> Case {
    if random.below(4) != 0 {
        let other = pick(random, others);
        mutate(random, &mut bytes, other);
    }
    Case { kind, bytes }
}

fn message(random: &mut Random, side: Side) -> (milena_server::protocol::ApiKey, i16, Vec<u8>) {
    let key = SERVED[random.below(SERVED.len())];
    let versions = supported_versions(key).expect("it is served");
    let version = versions.start() + random.below((versions.end() - versions.start() + 1) as usize) as i16;
    let schema = codec(key, side).schema;
    let encoding = schema.encoding(version).expect("it is served");
    (key, version, made_up(random, &schema.body, encoding))
}

fn made_up(random: &mut Random, of: &StructSchema, encoding: Encoding) -> Vec<u8> {
    let unknown_tags = random.below(4) == 0;
    generate(of, encoding, random.below(1 << 30) as u64, unknown_tags)
}

fn consumer_metadata(random: &mut Random) -> Case {
    let (kind, schema) = [
        (Kind::Subscription, ConsumerProtocolSubscription::SCHEMA),
        (Kind::Assignment, ConsumerProtocolAssignment::SCHEMA),
    ][random.below(2)];
    let version = random.below(2) as i16;
    let encoding = Encoding {
        version,
        flexible: false,
    };
    let mut bytes = made_up(random, &schema, encoding);
    let stated = if random.below(8) == 0 { 9 } else { version };
    bytes.splice(0..0, stated.to_be_bytes());
    let other = made_up(random, &schema, encoding);
    spoiled(kind, random, bytes, &[other])
}
