//! Server-sent events: how one is written, and the answer that carries them.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use crate::http::Reply;
use crate::model::json;
use crate::model::limits::SSE_RETRY;

/// An answer that is a stream of events, whose first line tells clients when to connect again.
pub fn reply(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Reply {
    let body = move |out: &mut dyn Write| {
        retry(out, SSE_RETRY)?;
        out.flush()?;
        write(out)
    };
    Reply::stream(200, "text/event-stream; charset=utf-8", body)
        .with_header("Cache-Control", "no-cache")
        // nginx would otherwise keep events until a buffer is full.
        .with_header("X-Accel-Buffering", "no")
}

/// Writes one event; it reaches the client with the next flush.
///
/// # Errors
/// Those of the writer: the client is gone.
pub fn event(out: &mut dyn Write, name: &str, id: Option<u64>, data: &Value) -> io::Result<()> {
    line(out, name, id, &[&json::to_wire(data).map_err(io::Error::other)?])
}

/// The same with data that is written as JSON already: these pieces, one after the other.
pub fn line(out: &mut dyn Write, name: &str, id: Option<u64>, data: &[&[u8]]) -> io::Result<()> {
    // One line: JSON as it goes out has its line ends escaped.
    let length: usize = data.iter().map(|piece| piece.len()).sum();
    let mut text = Vec::with_capacity(length + 64);
    writeln!(text, "event: {name}")?;
    if let Some(id) = id {
        writeln!(text, "id: {id}")?;
    }
    text.extend_from_slice(b"data: ");
    data.iter().for_each(|piece| text.extend_from_slice(piece));
    text.extend_from_slice(b"\n\n");
    out.write_all(&text)
}

fn retry(out: &mut dyn Write, after: Duration) -> io::Result<()> {
    write!(out, "retry: {}\n\n", after.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line_of_ascii_data() {
        let mut out = Vec::new();
        event(&mut out, "snapshot", Some(7), &json!({"a": "x\ny\u{2028}é"})).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "event: snapshot\nid: 7\ndata: {\"a\":\"x\\ny\\u2028\\u00e9\"}\n\n"
        );
        let mut out = Vec::new();
        event(&mut out, "heartbeat", None, &json!({})).unwrap();
        assert_eq!(out, b"event: heartbeat\ndata: {}\n\n");
    }
}
