//! Streams of events: how to open one, read its events, and see its end.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::Value;
use ureq::http::Method;

use super::transport::Call;
use super::{Client, Error, segment};
use crate::model::json;

/// Largest line of a stream of events that the client reads; a snapshot is far below it.
const CLIENT_MAX_EVENT_BYTES: u64 = 16 * 1024 * 1024;
/// What a stream may take longer than it was asked to, for connecting and for the last event.
const CLIENT_STREAM_SLACK: Duration = Duration::from_secs(2);

/// Which snapshots of a run a watch delivers.
#[derive(Debug, Clone, Default)]
pub struct WatchQuery {
    /// With the records of its tasks.
    pub records: bool,
    /// Only snapshots written at this time or later, unix seconds.
    pub since: Option<f64>,
    /// How long the stream may last, in seconds; the server checks its bounds.
    pub timeout_sec: u64,
    /// End with the terminal snapshot. The Python gateway does not know it, so look yourself.
    pub until_terminal: bool,
    /// `id` of the last event that the client has seen: the gateway does not send it again.
    pub last_event_id: Option<String>,
}

/// One event of a stream, as the gateway has sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What has happened: `snapshot`, `heartbeat`, or another that a newer gateway sends.
    pub name: String,
    /// To go on from; the Python gateway gives none.
    pub id: Option<String>,
    /// The JSON document of the event; for `snapshot` that of the run.
    pub data: Value,
}

/// A stream that is open. It ends with its connection, so dropping it closes it.
pub struct EventStream {
    request: String,
    client: Client,
    body: BufReader<Box<dyn Read + Send + Sync>>,
}

impl Client {
    /// Opens the stream of a run's snapshots. It is given up when it lasts longer than it was asked
    /// to, so a dead connection is noticed by then.
    pub fn watch(&self, run_id: &str, query: &WatchQuery) -> Result<EventStream, Error> {
        let mut call = Call::new(Method::GET, format!("/runs/{}/watch", segment(run_id)))
            .with_query("timeout_sec", Some(query.timeout_sec))
            .with_query("include", query.records.then_some("records"))
            .with_query("since", query.since)
            .with_query("until_terminal", query.until_terminal.then_some("true"));
        call.headers.extend(query.last_event_id.clone().map(|id| ("Last-Event-ID", id)));
        let timeout = Duration::from_secs(query.timeout_sec) + CLIENT_STREAM_SLACK;
        let client = Client { timeout, ..self.clone() };
        let response = client.response(&call)?;
        let body: Box<dyn Read + Send + Sync> = Box::new(response.into_body().into_reader());
        Ok(EventStream { request: call.name(), client, body: BufReader::new(body) })
    }
}

impl EventStream {
    /// The next event; `None` at the proper end of the stream.
    ///
    /// # Errors
    /// [`Error::Broken`] when it broke off, [`Error::TimedOut`], [`Error::BadReply`] for what is no event.
    pub fn next_event(&mut self) -> Result<Option<Event>, Error> {
        let mut fields = Fields::default();
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            if !line.is_empty() {
                fields.take(&line);
            } else if let Some((name, id, data)) = std::mem::take(&mut fields).finish() {
                let read = json::from_wire(data.as_bytes());
                let data = read.map_err(|error| Error::BadReply {
                    request: self.request.clone(),
                    reason: error.to_string(),
                })?;
                return Ok(Some(Event { name, id, data }));
            }
        }
    }

    /// The next line without its end; `None` when there is none, not even half of one.
    fn line(&mut self) -> Result<Option<String>, Error> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.body).take(CLIENT_MAX_EVENT_BYTES);
        let read = bounded.read_until(b'\n', &mut line);
        read.map_err(|error| self.client.failure(self.request.clone(), error.into()))?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                Ok(Some(String::from_utf8_lossy(&line).into_owned()))
            }
            Some(_) if line.len() as u64 + 1 >= CLIENT_MAX_EVENT_BYTES => {
                let (request, limit) = (self.request.clone(), CLIENT_MAX_EVENT_BYTES);
                Err(Error::ReplyTooLarge { request, limit })
            }
            // The end of the connection in the middle of a line.
            Some(_) => Ok(None),
        }
    }
}

/// The fields of an event as they come, line by line.
#[derive(Default)]
struct Fields {
    name: Option<String>,
    id: Option<String>,
    data: Vec<String>,
}

impl Fields {
    fn take(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = Some(value.to_owned()),
            "id" => self.id = Some(value.to_owned()),
            "data" => self.data.push(value.to_owned()),
            // `retry`, comments, and what newer servers send.
            _ => {}
        }
    }

    /// A block without data is no event.
    fn finish(self) -> Option<(String, Option<String>, String)> {
        let name = self.name.unwrap_or_else(|| "message".to_owned());
        (!self.data.is_empty()).then(|| (name, self.id, self.data.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_the_standard_has_it() {
        let read = |text: &str| {
            let mut fields = Fields::default();
            text.lines().for_each(|line| fields.take(line));
            fields.finish()
        };
        let event = read("event: snapshot\nid: 7\nretry: 2000\ndata: {\ndata:1}\n: comment\nx: y");
        assert_eq!(event, Some(("snapshot".into(), Some("7".into()), "{\n1}".into())));
        assert_eq!(read("retry: 2000"), None);
        assert_eq!(read("data"), Some(("message".into(), None, String::new())));
    }
}
