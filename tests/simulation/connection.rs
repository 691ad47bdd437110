//! One connection to a nats-server that speaks the protocol by hand, so that each answer of JetStream is seen
//! as it is.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::nats::NatsServer;

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The subscription to the answers of requests.
const ANSWERS: u64 = 1;
/// The subscription of [`Connection::listen`].
const NEWS: u64 = 2;

pub struct Connection {
    /// No other connection gets what is sent to subjects that begin with it.
    prefix: String,
    stream: BufReader<TcpStream>,
    /// Numbers requests and pulls; subscriptions of pulls are numbered alike.
    next: u64,
    news: Vec<Value>,
    /// The longest that one request took.
    pub slowest: Duration,
}

pub struct Message {
    subject: String,
    subscription: u64,
    pub reply: Option<String>,
    pub headers: String,
    pub payload: Vec<u8>,
}

impl Connection {
    pub fn open(nats: &NatsServer) -> Connection {
        let stream = TcpStream::connect_timeout(&nats.address(), TIMEOUT).unwrap();
        stream.set_nodelay(true).unwrap();
        let (next, news, slowest) = (NEWS + 1, Vec::new(), Duration::ZERO);
        let prefix = format!("from{}", stream.local_addr().unwrap().port());
        let stream = BufReader::new(stream);
        let mut connection = Connection { prefix, stream, next, news, slowest };
        let options = json!({"verbose": false, "headers": true, "no_responders": true});
        let answers = format!("SUB {}.answer.* {ANSWERS}", connection.prefix);
        connection.send(format!("CONNECT {options}\r\n{answers}\r\n").as_bytes());
        connection
    }

    /// What is published under `subject` from now on is kept for [`Connection::news`].
    pub fn listen(&mut self, subject: &str) {
        self.send(format!("SUB {subject} {NEWS}\r\n").as_bytes());
    }

    /// What has come so far. Requests that were answered meanwhile have brought what the server sent before.
    pub fn news(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.news)
    }

    pub fn request(&mut self, subject: &str, headers: &str, payload: &[u8]) -> Vec<u8> {
        self.ask(&[(subject, headers, payload)]).pop().unwrap()
    }

    /// Calls `$JS.API.<call>`; panics when JetStream refuses.
    pub fn call(&mut self, call: &str, body: &Value) -> Value {
        let answer = self.try_call(call, body);
        assert!(answer.get("error").is_none(), "{call}: {answer}");
        answer
    }

    pub fn try_call(&mut self, call: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.request(&format!("$JS.API.{call}"), "", body.as_bytes());
        serde_json::from_slice(&answer).unwrap()
    }

    /// Several requests at once, and their answers in the same order.
    pub fn ask(&mut self, requests: &[(&str, &str, &[u8])]) -> Vec<Vec<u8>> {
        let began = Instant::now();
        let first = self.next;
        let mut bytes = Vec::new();
        for (subject, headers, payload) in requests {
            let answer = format!("{}.answer.{}", self.prefix, self.next);
            self.next += 1;
            match headers.len() {
                0 => write!(bytes, "PUB {subject} {answer} {}\r\n", payload.len()),
                length => {
                    write!(bytes, "HPUB {subject} {answer} {length} {}\r\n{headers}", length + payload.len())
                }
            }
            .unwrap();
            bytes.extend_from_slice(payload);
            bytes.extend_from_slice(b"\r\n");
        }
        self.send(&bytes);
        let mut answers: Vec<Option<Vec<u8>>> = vec![None; requests.len()];
        while answers.iter().any(Option::is_none) {
            let message = self.message(TIMEOUT).expect("no answer from nats-server");
            if message.subscription != ANSWERS {
                // It crossed the end of its pull. The figures will tell that it was delivered.
                continue;
            }
            let number: u64 = message.subject.rsplit('.').next().unwrap().parse().unwrap();
            let at = (number - first) as usize;
            assert!(!message.headers.starts_with("NATS/1.0 503"), "nobody answers {}", requests[at].0);
            answers[at] = Some(message.payload);
        }
        self.slowest = self.slowest.max(began.elapsed());
        answers.into_iter().flatten().collect()
    }

    /// Asks a consumer for one message, without waiting for one. `None`: no answer within `patience`, and the
    /// pull is withdrawn.
    pub fn pull(&mut self, consumer: &str, patience: Duration) -> Option<Message> {
        let began = Instant::now();
        let number = self.next;
        self.next += 1;
        let body = json!({"batch": 1, "no_wait": true}).to_string();
        let length = body.len();
        let reply = format!("{}.pull.{number}", self.prefix);
        let ask = format!("PUB $JS.API.CONSUMER.MSG.NEXT.{consumer} {reply} {length}\r\n{body}\r\n");
        self.send(format!("SUB {reply} {number}\r\n{ask}").as_bytes());
        let message = self.message(patience);
        self.send(format!("UNSUB {number}\r\n").as_bytes());
        let message = message.filter(|message| message.subscription == number)?;
        self.slowest = self.slowest.max(began.elapsed());
        Some(message)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// The next message that is none of the news.
    fn message(&mut self, patience: Duration) -> Option<Message> {
        let end = Instant::now() + patience;
        loop {
            if self.stream.buffer().is_empty() {
                let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                self.stream.get_ref().set_read_timeout(Some(left)).unwrap();
                match self.stream.fill_buf() {
                    Ok(bytes) => assert!(!bytes.is_empty(), "nats-server has closed the connection"),
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                        return None;
                    }
                    Err(e) => panic!("nats-server: {e}"),
                }
            }
            // What has begun comes to its end.
            self.stream.get_ref().set_read_timeout(Some(TIMEOUT)).unwrap();
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            let (head, sizes) = match words.first().copied() {
                Some("MSG") => (&words[1..words.len() - 1], [0, words[words.len() - 1].parse().unwrap()]),
                Some("HMSG") => {
                    let [headers, all] = [2, 1].map(|at| words[words.len() - at].parse().unwrap());
                    (&words[1..words.len() - 2], [headers, all])
                }
                Some("PING") => {
                    self.send(b"PONG\r\n");
                    continue;
                }
                Some("INFO") => continue,
                _ => panic!("nats-server says {line:?}"),
            };
            let [headers, all]: [usize; 2] = sizes;
            let mut body = vec![0; all + 2];
            self.stream.read_exact(&mut body).unwrap();
            let message = Message {
                subject: head[0].to_owned(),
                subscription: head[1].parse().unwrap(),
                reply: head.get(2).map(|reply| (*reply).to_owned()),
                headers: String::from_utf8(body[..headers].to_vec()).unwrap(),
                payload: body[headers..all].to_vec(),
            };
            if message.subscription != NEWS {
                return Some(message);
            }
            self.news.push(serde_json::from_slice(&message.payload).unwrap());
        }
    }
}
