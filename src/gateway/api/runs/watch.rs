//! `GET /runs/{id}/watch`: a run's snapshots as they come, as server-sent events.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::show;
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::api::schema::Query;
use crate::gateway::view::hub::{News, RunWatch, Shown, Version};
use crate::http::Reply;
use crate::http::sse;
use crate::model::limits::{SSE_HEARTBEAT, WATCH_TIMEOUT_SEC};
use crate::model::{clock, json as lenient};

/// A stream that begins with the present snapshot.
pub fn run(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let query = Query::parse(cx.request.query());
    let mut problems = Vec::new();
    let since = query.float("since", &mut problems);
    let timeout = query.integer("timeout_sec", WATCH_TIMEOUT_SEC, &mut problems);
    let until_terminal = query.flag("until_terminal", false, &mut problems);
    if !problems.is_empty() {
        return Err(ApiError::Schema(problems));
    }
    let last_event_id = cx.request.header("Last-Event-ID").and_then(|id| id.trim().parse().ok());
    let run_id = cx.param().to_owned();
    // Before the present version is looked at, so that nothing falls between the two.
    let caller = &cx.caller;
    let news = parts.hub.watch(&run_id, caller.key_id())?;
    let present = show::version(parts, caller, &run_id)?;
    // A key that was revoked before the stream was there to be ended.
    parts.auth.confirm(caller)?;
    let stream = Stream {
        run_id,
        news,
        with_records: query.has_any("include", &["records", "full", "all"]),
        since,
        until_terminal,
        deadline: Instant::now() + Duration::from_secs(timeout.unsigned_abs()),
    };
    Ok(sse::reply(move |out| stream.write(out, present, last_event_id)))
}

struct Stream {
    run_id: String,
    news: RunWatch,
    with_records: bool,
    since: Option<f64>,
    until_terminal: bool,
    deadline: Instant,
}

impl Stream {
    /// Writes events until the time is over, the run is gone or has ended, or the gateway stops.
    fn write(self, out: &mut dyn Write, present: Version, last_event_id: Option<u64>) -> io::Result<()> {
        // A client that has this very version already is not told it again.
        let is_known = last_event_id == Some(present.revision);
        if self.tell(out, &present, is_known)? {
            return Ok(());
        }
        let mut newest = present.revision;
        let mut silent_since = Instant::now();
        loop {
            let now = Instant::now();
            let left = self.deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Ok(());
            }
            let until_heartbeat = SSE_HEARTBEAT.saturating_sub(now - silent_since);
            match self.news.next(until_heartbeat.min(left)) {
                // What came before the present version was looked at.
                News::Version(version) if version.revision <= newest => {}
                News::Version(version) => {
                    newest = version.revision;
                    silent_since = Instant::now();
                    if self.tell(out, &version, false)? {
                        return Ok(());
                    }
                }
                News::Reset => newest = 0,
                News::Removed | News::Closed => return Ok(()),
                News::Nothing if silent_since.elapsed() >= SSE_HEARTBEAT => {
                    silent_since = Instant::now();
                    let data = json!({"run_id": self.run_id, "ts": clock::now()});
                    sse::event(out, "heartbeat", None, &data)?;
                    out.flush()?;
                }
                News::Nothing => {}
            }
        }
    }

    /// `true` when it is the last version that is wanted; one that is known or too old is not written.
    fn tell(&self, out: &mut dyn Write, version: &Version, is_known: bool) -> io::Result<bool> {
        let view = version.view(self.with_records, |document| {
            let view = view(document, self.with_records);
            view.inspect_err(|e| {
                log::warn!(run_id = self.run_id.as_str(), error = e.to_string();
                    "a snapshot cannot be read; leaving it out of a watch");
            })
            .ok()
        });
        let Some(view) = view else { return Ok(false) };
        let is_old = matches!((view.updated_at, self.since), (Some(at), Some(since)) if at < since);
        if !is_known && !is_old {
            let (run_id, ts) = (json!(self.run_id).to_string(), json!(clock::now()).to_string());
            let data: [&[u8]; 7] = [
                b"{\"run_id\":",
                run_id.as_bytes(),
                b",\"snapshot\":",
                &view.json,
                b",\"ts\":",
                ts.as_bytes(),
                b"}",
            ];
            sse::line(out, "snapshot", Some(version.revision), &data)?;
            out.flush()?;
        }
        Ok(view.is_terminal && self.until_terminal)
    }
}

fn view(document: &[u8], with_records: bool) -> serde_json::Result<Shown> {
    let snapshot: Map<String, Value> = lenient::from_wire(document)?;
    let status = snapshot.get("status").and_then(Value::as_str);
    Ok(Shown {
        updated_at: snapshot.get("updated_at").and_then(Value::as_f64),
        is_terminal: matches!(status, Some("COMPLETED" | "FAILED" | "CANCELLED")),
        json: lenient::to_wire(&show::snapshot_json(snapshot, with_records))?,
    })
}
