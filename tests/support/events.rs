//! Reads a stream of events as a client does: chunk by chunk, event by event.

use std::time::Instant;

use serde_json::Value;

use super::http::{Client, Connection};

pub struct Events {
    connection: Connection,
    /// The head of the answer, in lower case.
    pub head: String,
    /// What came and was not taken apart yet.
    text: String,
    /// What stood before the first event.
    pub retry: Option<String>,
    ended: bool,
}

#[derive(Debug, Clone)]
pub struct Event {
    /// `snapshot`, `heartbeat`, …
    pub name: String,
    /// A KV revision.
    pub id: Option<u64>,
    /// JSON, of one line.
    pub data: Value,
    /// When it had come.
    pub at: Instant,
}

impl Client {
    /// Opens a stream of events that must be granted.
    pub fn events(&self, path: &str) -> Events {
        self.events_after(path, "")
    }

    /// The same with further header lines, each with its line end.
    pub fn events_after(&self, path: &str, headers: &str) -> Events {
        let (head, connection) = self.stream_with(path, headers);
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        Events { connection, head, text: String::new(), retry: None, ended: false }
    }
}

impl Events {
    /// The next event; `None` at the proper end of the stream. Panics when it breaks off.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(retry) = block.strip_prefix("retry: ") {
                    self.retry = Some(retry.to_owned());
                    continue;
                }
                return Some(event(&block));
            }
            if self.ended {
                assert_eq!(self.text, "", "half an event at the end");
                return None;
            }
            self.read_chunk();
        }
    }

    /// The next event, which must come.
    pub fn event(&mut self) -> Event {
        self.next().expect("the stream has ended")
    }

    /// The next event of that name; others are skipped.
    pub fn named(&mut self, name: &str) -> Event {
        loop {
            let event = self.event();
            if event.name == name {
                return event;
            }
        }
    }

    /// Skips events until one satisfies `wanted`.
    pub fn until(&mut self, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        loop {
            let event = self.event();
            if wanted(&event) {
                return event;
            }
        }
    }

    /// All events up to the end.
    pub fn rest(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn read_chunk(&mut self) {
        let chunk = self.connection.take_chunk().expect("the stream broke off");
        self.ended = chunk.is_none();
        let chunk = chunk.unwrap_or_default();
        assert!(chunk.is_ascii(), "not ASCII");
        self.text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

fn event(block: &str) -> Event {
    let mut event = Event { name: String::new(), id: None, data: Value::Null, at: Instant::now() };
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("event", name)) => event.name = name.to_owned(),
            Some(("id", id)) => event.id = Some(id.parse().unwrap()),
            Some(("data", data)) if event.data.is_null() => {
                event.data = serde_json::from_str(data).unwrap();
            }
            _ => panic!("unexpected line {line:?} in {block:?}"),
        }
    }
    assert!(!event.name.is_empty() && event.data.is_object(), "{block:?}");
    event
}
