//! Random writes to a bucket, at a real nats-server and at the model.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::sim::jetstream::{Bucket, WrongRevision};
use crate::sim::random::Random;
use crate::support::nats::NatsServer;

const SEQUENCES: u64 = 8;
const STEPS: usize = 120;
const KEYS: usize = 3;
/// JetStream's numbers for `wrong last sequence` and `message not found`.
const WRONG_REVISION: u64 = 10071;
const NOT_FOUND: u64 = 10037;

#[test]
fn a_bucket_answers_as_nats_server_does() {
    let nats = NatsServer::start();
    for seed in 0..SEQUENCES {
        let mut random = Random::new(seed);
        let mut model: Bucket<u64> = Bucket::new();
        let mut real = RealBucket::create(&nats, &format!("b{seed}"));
        for step in 0..STEPS {
            let key = random.below(KEYS as u64) as usize;
            let newest = model.newest(key).copied();
            let context = format!("seed {seed}, step {step}, key {key} with {newest:?}");
            if random.one_in(3) {
                assert_eq!(real.newest(key), newest, "{context}");
                continue;
            }
            let right = newest.map_or(0, |(revision, _)| revision);
            let expected = match random.by_weight(&[6, 1, 1, 1]) {
                0 => right,
                // As a create has it.
                1 => 0,
                2 => right.saturating_sub(1),
                _ => right + 1,
            };
            let value = (!random.one_in(4)).then_some(step as u64);
            let answer = real.update(key, expected, value);
            assert_eq!(answer, model.update(key, expected, value), "{context}: {value:?} upon {expected}");
        }
    }
}

struct RealBucket {
    connection: Connection,
    name: String,
}

impl RealBucket {
    fn create(nats: &NatsServer, name: &str) -> RealBucket {
        let mut connection = Connection::open(nats);
        let stream = json!({
            "name": format!("KV_{name}"),
            "subjects": [format!("$KV.{name}.>")],
            "discard": "new",
            "max_msgs_per_subject": 1,
            "storage": "file",
            "allow_rollup_hdrs": true,
            "deny_delete": true,
            "allow_direct": true,
        });
        connection.call(&format!("STREAM.CREATE.KV_{name}"), &stream);
        RealBucket { connection, name: name.to_owned() }
    }

    fn update(&mut self, key: usize, expected: u64, value: Option<u64>) -> Result<u64, WrongRevision> {
        let tombstone = if value.is_none() { "KV-Operation: DEL\r\n" } else { "" };
        let headers =
            format!("NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {expected}\r\n{tombstone}\r\n");
        let payload = value.map(|value| value.to_string()).unwrap_or_default();
        let subject = format!("$KV.{}.k{key}", self.name);
        let answer = self.connection.request(&subject, &headers, payload.as_bytes());
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        if answer["error"]["err_code"] == WRONG_REVISION {
            return Err(WrongRevision);
        }
        assert!(answer.get("error").is_none(), "{answer}");
        Ok(answer["seq"].as_u64().unwrap())
    }

    fn newest(&mut self, key: usize) -> Option<(u64, Option<u64>)> {
        let which = json!({"last_by_subj": format!("$KV.{}.k{key}", self.name)});
        let answer = self.connection.try_call(&format!("STREAM.MSG.GET.KV_{}", self.name), &which);
        if answer["error"]["err_code"] == NOT_FOUND {
            return None;
        }
        let message = &answer["message"];
        let text = |field: &str| {
            let bytes = STANDARD.decode(message[field].as_str().unwrap_or_default()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let value = (!text("hdrs").contains("KV-Operation: DEL")).then(|| text("data").parse().unwrap());
        Some((message["seq"].as_u64().unwrap(), value))
    }
}
