//! A work-queue stream with one durable pull consumer on a real nats-server, in the words of the model.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::sim::jetstream::{Delivery, Figures, Full, Settings};
use crate::support::nats::NatsServer;

const NANOS: u64 = 1_000_000;
/// A pull that does not wait is answered at once, unless `max_ack_pending` is reached: then it is not.
const HELD_BACK: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(10);
/// JetStream's numbers for `maximum messages exceeded` and `message not found`.
const IS_FULL: u64 = 10077;
const NOT_FOUND: u64 = 10037;

pub struct Queue {
    pub connection: Connection,
    name: String,
}

/// A delivery, and what the server tells with it.
pub struct Delivered {
    pub delivery: Delivery,
    pub message: u64,
    /// How many messages were never delivered so far.
    pub pending: u64,
    pub reply: String,
}

impl Queue {
    pub fn create(nats: &NatsServer, name: &str, settings: Settings, max_messages: usize) -> Queue {
        let mut connection = Connection::open(nats);
        let stream = json!({
            "name": name,
            "subjects": [format!("work.{name}")],
            "retention": "workqueue",
            "discard": "new",
            "storage": "file",
            "duplicate_window": settings.duplicate_window * NANOS,
            "max_msgs": i64::try_from(max_messages).unwrap_or(-1),
            "allow_direct": true,
        });
        connection.call(&format!("STREAM.CREATE.{name}"), &stream);
        let consumer = json!({"stream_name": name, "config": {
            "durable_name": "c",
            "filter_subject": format!("work.{name}"),
            "ack_policy": "explicit",
            "ack_wait": settings.ack_wait * NANOS,
            "max_deliver": settings.max_deliver,
            "max_ack_pending": settings.max_ack_pending,
        }});
        connection.call(&format!("CONSUMER.DURABLE.CREATE.{name}.c"), &consumer);
        connection.listen(&format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{name}.c"));
        // Streams are made by the disk.
        connection.slowest = Duration::ZERO;
        Queue { connection, name: name.to_owned() }
    }

    pub fn delete(mut self) {
        self.connection.call(&format!("STREAM.DELETE.{}", self.name), &Value::Null);
    }

    pub fn publish(&mut self, id: &str, message: u64) -> Result<(u64, bool), Full> {
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
        let payload = message.to_string();
        let answer = self.connection.request(&format!("work.{}", self.name), &headers, payload.as_bytes());
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        if answer["error"]["err_code"] == IS_FULL {
            return Err(Full);
        }
        let seq = answer["seq"].as_u64().filter(|_| answer.get("error").is_none());
        Ok((seq.unwrap_or_else(|| panic!("{answer}")), answer["duplicate"] == true))
    }

    pub fn fetch(&mut self, may_be_held_back: bool) -> Option<Delivered> {
        let patience = if may_be_held_back { HELD_BACK } else { PATIENCE };
        let Some(message) = self.connection.pull(&format!("{}.c", self.name), patience) else {
            assert!(may_be_held_back, "no answer to a pull");
            return None;
        };
        let Some(reply) = message.reply else {
            assert!(message.headers.starts_with("NATS/1.0 404"), "{}", message.headers);
            return None;
        };
        // `$JS.ACK.<stream>.<consumer>.<num>.<seq>.<nth>.<time>.<pending>`; newer servers have the domain and
        // the account before the stream.
        let words: Vec<&str> = reply.split('.').collect();
        let first = if words.len() == 9 { 4 } else { 6 };
        let number = |at: usize| words[first + at].parse().unwrap();
        Some(Delivered {
            delivery: Delivery { num: number(0), seq: number(1), nth: number(2) },
            message: String::from_utf8(message.payload).unwrap().parse().unwrap(),
            pending: number(4),
            reply,
        })
    }

    /// Sends `+ACK`, `-NAK`, … to the reply subject of a delivery; returns when the server confirms it.
    pub fn settle(&mut self, reply: &str, word: &str) {
        let answer = self.connection.request(reply, "", word.as_bytes());
        assert_eq!(answer, b"", "{word}: {}", String::from_utf8_lossy(&answer));
    }

    /// `false`: it was not there.
    pub fn remove(&mut self, seq: u64) -> bool {
        let answer =
            self.connection.try_call(&format!("STREAM.MSG.DELETE.{}", self.name), &json!({"seq": seq}));
        assert!(answer["success"] == true || answer["error"].is_object(), "{answer}");
        answer["success"] == true
    }

    pub fn get(&mut self, seq: u64) -> Option<u64> {
        self.read(&json!({"seq": seq})).map(|(_, message)| message)
    }

    pub fn next(&mut self, seq: u64) -> Option<(u64, u64)> {
        let subject = format!("work.{}", self.name);
        self.read(&json!({"seq": seq, "next_by_subj": subject}))
    }

    fn read(&mut self, which: &Value) -> Option<(u64, u64)> {
        let answer = self.connection.try_call(&format!("STREAM.MSG.GET.{}", self.name), which);
        if answer["error"]["err_code"] == NOT_FOUND {
            return None;
        }
        let data = STANDARD.decode(answer["message"]["data"].as_str().unwrap_or_else(|| panic!("{answer}")));
        let message = String::from_utf8(data.unwrap()).unwrap().parse().unwrap();
        Some((answer["message"]["seq"].as_u64().unwrap(), message))
    }

    pub fn figures(&mut self) -> Figures {
        let calls = [format!("STREAM.INFO.{}", self.name), format!("CONSUMER.INFO.{}.c", self.name)];
        let calls = calls.map(|call| format!("$JS.API.{call}"));
        let answers = self.connection.ask(&calls.each_ref().map(|call| (call.as_str(), "", &b""[..])));
        let [stream, consumer]: [Value; 2] =
            [0, 1].map(|at: usize| serde_json::from_slice(&answers[at]).unwrap());
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{stream} {consumer}"));
        Figures {
            stored: number(&stream["state"]["messages"]),
            pending: number(&consumer["num_pending"]),
            ack_pending: number(&consumer["num_ack_pending"]),
            deliveries: number(&consumer["delivered"]["consumer_seq"]),
            delivered_to: number(&consumer["delivered"]["stream_seq"]),
        }
    }

    /// Advisories since the last call: the sequence, and after how many deliveries.
    pub fn advisories(&mut self) -> Vec<(u64, u64)> {
        let news = self.connection.news();
        let pair = |told: &Value| Some((told["stream_seq"].as_u64()?, told["deliveries"].as_u64()?));
        news.iter().map(|told| pair(told).unwrap_or_else(|| panic!("{told}"))).collect()
    }
}
