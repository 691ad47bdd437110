//! JetStream's own API, spoken by hand: what the bus keeps to itself can be seen and changed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::nats::NatsServer;

/// For one call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A message as it lies in a stream.
#[derive(Debug)]
pub struct Stored {
    /// Its sequence.
    pub seq: u64,
    /// The raw header block.
    pub headers: String,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl Stored {
    /// The bytes as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.data).unwrap()
    }
}

/// Calls `$JS.API.<call>`; panics when JetStream refuses.
pub fn call(nats: &NatsServer, call: &str, body: &Value) -> Value {
    let answer = try_call(nats, call, body);
    assert!(answer.get("error").is_none(), "{call}: {answer}");
    answer
}

/// The newest message of `subject`, if there is one.
pub fn last(nats: &NatsServer, stream: &str, subject: &str) -> Option<Stored> {
    let answer =
        try_call(nats, &format!("STREAM.MSG.GET.{stream}"), &json!({"last_by_subj": subject}));
    let message = answer.get("message")?;
    let decoded =
        |field: &str| STANDARD.decode(message[field].as_str().unwrap_or_default()).unwrap();
    Some(Stored {
        seq: message["seq"].as_u64().unwrap(),
        headers: String::from_utf8(decoded("hdrs")).unwrap(),
        data: decoded("data"),
    })
}

/// All messages of a stream, headers and bytes, one after the other.
pub fn everything(nats: &NatsServer, stream: &str) -> String {
    let state = call(nats, &format!("STREAM.INFO.{stream}"), &Value::Null)["state"].clone();
    let mut text = String::new();
    for seq in 1..=state["last_seq"].as_u64().unwrap() {
        let body = json!({"seq": seq});
        let message = try_call(nats, &format!("STREAM.MSG.GET.{stream}"), &body);
        for field in ["hdrs", "data"] {
            let encoded = message["message"][field].as_str().unwrap_or_default();
            text += &String::from_utf8_lossy(&STANDARD.decode(encoded).unwrap());
        }
    }
    text
}

/// How many messages a stream holds.
pub fn messages(nats: &NatsServer, stream: &str) -> u64 {
    call(nats, &format!("STREAM.INFO.{stream}"), &Value::Null)["state"]["messages"]
        .as_u64()
        .unwrap()
}

/// Makes the work stream refuse everything beyond `most` jobs, as a full queue does.
pub fn limit_jobs(nats: &NatsServer, most: i64) {
    let mut config = call(nats, "STREAM.INFO.PYOCO_WORK", &Value::Null)["config"].clone();
    config["max_msgs"] = most.into();
    config["discard"] = "new".into();
    call(nats, "STREAM.UPDATE.PYOCO_WORK", &config);
}

fn try_call(nats: &NatsServer, call: &str, body: &Value) -> Value {
    let payload = if body.is_null() { String::new() } else { body.to_string() };
    let stream = TcpStream::connect_timeout(&nats.address(), TIMEOUT).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let request = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB _INBOX.t 1\r\n\
         PUB $JS.API.{call} _INBOX.t {}\r\n{payload}\r\n",
        payload.len()
    );
    (&stream).write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    loop {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "{call}: the connection was closed");
        assert!(!line.starts_with("-ERR"), "{call}: {line}");
        assert!(!line.starts_with("HMSG"), "{call}: nobody answers");
        if line.starts_with("MSG _INBOX.t") {
            let length = line.split_whitespace().last().unwrap().parse().unwrap();
            let mut data = vec![0; length];
            reader.read_exact(&mut data).unwrap();
            return serde_json::from_slice(&data).unwrap();
        }
    }
}
