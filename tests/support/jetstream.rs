//! JetStream's own API, spoken by hand: what the bus keeps to itself can be seen and changed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::nats::NatsServer;
use super::wait::{PATIENCE, eventually};

/// For one call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A message as it lies in a stream.
#[derive(Debug)]
pub struct Stored {
    pub seq: u64,
    /// The raw header block.
    pub headers: String,
    pub data: Vec<u8>,
}

impl Stored {
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

/// Waits until a gateway has made a bucket. A write of the test's own would make it with other settings.
pub fn wait_bucket(nats: &NatsServer, bucket: &str) {
    eventually(PATIENCE, &format!("the bucket {bucket}"), || {
        let info = try_call(nats, &format!("STREAM.INFO.KV_{bucket}"), &Value::Null);
        info.get("error").is_none().then_some(())
    });
}

/// The newest message of `subject`, if there is one.
pub fn last(nats: &NatsServer, stream: &str, subject: &str) -> Option<Stored> {
    get(nats, stream, &json!({"last_by_subj": subject}))
}

/// All messages of a stream under a subject, oldest first.
pub fn all(nats: &NatsServer, stream: &str, subject: &str) -> Vec<Stored> {
    let mut seq = 1;
    std::iter::from_fn(|| {
        let found = get(nats, stream, &json!({"seq": seq, "next_by_subj": subject}))?;
        seq = found.seq + 1;
        Some(found)
    })
    .collect()
}

/// All messages of a stream, headers and bytes, one after the other.
pub fn everything(nats: &NatsServer, stream: &str) -> String {
    let stored = all(nats, stream, ">");
    stored.iter().map(|m| format!("{}{}", m.headers, String::from_utf8_lossy(&m.data))).collect()
}

fn get(nats: &NatsServer, stream: &str, which: &Value) -> Option<Stored> {
    let answer = try_call(nats, &format!("STREAM.MSG.GET.{stream}"), which);
    let message = answer.get("message")?;
    let decoded = |field: &str| STANDARD.decode(message[field].as_str().unwrap_or_default()).unwrap();
    Some(Stored {
        seq: message["seq"].as_u64().unwrap(),
        headers: String::from_utf8(decoded("hdrs")).unwrap(),
        data: decoded("data"),
    })
}

/// How many messages a stream holds.
pub fn messages(nats: &NatsServer, stream: &str) -> u64 {
    call(nats, &format!("STREAM.INFO.{stream}"), &Value::Null)["state"]["messages"].as_u64().unwrap()
}

/// Changes settings of a stream.
pub fn update(nats: &NatsServer, stream: &str, edit: impl FnOnce(&mut Value)) {
    let mut config = call(nats, &format!("STREAM.INFO.{stream}"), &Value::Null)["config"].take();
    edit(&mut config);
    call(nats, &format!("STREAM.UPDATE.{stream}"), &config);
}

/// Makes the work stream refuse everything beyond `most` jobs, as a full queue does.
pub fn limit_jobs(nats: &NatsServer, most: i64) {
    update(nats, "PYOCO_WORK", |config| {
        config["max_msgs"] = most.into();
        config["discard"] = "new".into();
    });
}

/// Stores bytes as they are under a subject, without a message id; returns their sequence.
pub fn publish(nats: &NatsServer, subject: &str, payload: &[u8]) -> u64 {
    let ack = request(nats, subject, payload).unwrap();
    let ack: Value = serde_json::from_slice(&ack).unwrap();
    ack["seq"].as_u64().unwrap_or_else(|| panic!("not stored: {ack}"))
}

/// Sends a message with a header block as it is, which no client library would send. NATS has it when this
/// returns; nobody need have stored it.
pub fn send(nats: &NatsServer, subject: &str, headers: &[u8], payload: &[u8]) {
    let mut connection = Connection::open(nats).unwrap();
    let command = match headers.len() {
        0 => format!("PUB {subject} {}\r\n", payload.len()),
        length => format!("HPUB {subject} {length} {}\r\n", length + payload.len()),
    };
    connection.send(&[command.as_bytes(), headers, payload, b"\r\nPING\r\n"].concat()).unwrap();
    connection.line_that_begins_with("PONG").unwrap();
}

/// Calls `$JS.API.<call>`; a refusal is an answer, too.
pub fn try_call(nats: &NatsServer, call: &str, body: &Value) -> Value {
    let payload = if body.is_null() { String::new() } else { body.to_string() };
    let subject = format!("$JS.API.{call}");
    let answer = eventually(PATIENCE, &format!("an answer to {call}"), || {
        request(nats, &subject, payload.as_bytes()).ok()
    });
    serde_json::from_slice(&answer).unwrap()
}

/// One request and its answer.
fn request(nats: &NatsServer, subject: &str, payload: &[u8]) -> io::Result<Vec<u8>> {
    request_within(nats, subject, payload, TIMEOUT)
}

/// The same with a time of its own for each step.
pub fn request_within(
    nats: &NatsServer,
    subject: &str,
    payload: &[u8],
    limit: Duration,
) -> io::Result<Vec<u8>> {
    let mut connection = Connection::open_within(nats, limit)?;
    let length = payload.len();
    let command = format!("SUB _INBOX.t 1\r\nPUB {subject} _INBOX.t {length}\r\n");
    connection.send(&[command.as_bytes(), payload, b"\r\n"].concat())?;
    let line = connection.line_that_begins_with("MSG _INBOX.t")?;
    let length = line.split_whitespace().last().and_then(|word| word.parse().ok());
    let mut data = vec![0; length.ok_or_else(|| io::Error::other(line.clone()))?];
    connection.0.read_exact(&mut data)?;
    Ok(data)
}

/// A connection that speaks the protocol of NATS.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(nats: &NatsServer) -> io::Result<Connection> {
        Self::open_within(nats, TIMEOUT)
    }

    fn open_within(nats: &NatsServer, limit: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&nats.address(), limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let mut connection = Connection(BufReader::new(stream));
        let options = json!({"verbose": false, "headers": true, "no_responders": true});
        connection.send(format!("CONNECT {options}\r\n").as_bytes())?;
        Ok(connection)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Skips lines; an error of NATS, and the message that nobody answers, are errors.
    fn line_that_begins_with(&mut self, begin: &str) -> io::Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.starts_with("-ERR") || line.starts_with("HMSG") {
                return Err(io::Error::other(line));
            }
            if line.starts_with(begin) {
                return Ok(line);
            }
        }
    }
}
