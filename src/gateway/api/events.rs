//! `GET /events`: every change of runs and workers as it comes, for dashboards.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::workers;
use crate::gateway::api::context::Context;
use crate::gateway::api::error::ApiError;
use crate::gateway::auth::Caller;
use crate::gateway::view::hub::{Batch, Change, Feed, RunFilter};
use crate::http::Reply;
use crate::http::sse;
use crate::model::clock;
use crate::model::limits::{FEED_PAUSE, SSE_HEARTBEAT};

pub fn all(cx: &mut Context<'_>) -> Result<Reply, ApiError> {
    let parts = cx.parts;
    let caller = &cx.caller;
    let feed = parts.hub.feed(visible_to(caller), caller.key_id())?;
    // A key that was revoked before the stream was there to be ended.
    parts.auth.confirm(caller)?;
    let stream = Stream { feed, disconnect_timeout: parts.settings.disconnect_timeout };
    Ok(sse::reply(move |out| stream.write(out)))
}

fn visible_to(caller: &Caller) -> RunFilter {
    let caller = caller.clone();
    Box::new(move |run| caller.sees(run.tenant_id.as_deref()))
}

struct Stream {
    feed: Feed,
    disconnect_timeout: Duration,
}

impl Stream {
    fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let mut silent_since = Instant::now();
        loop {
            let patience = SSE_HEARTBEAT.saturating_sub(silent_since.elapsed());
            match self.feed.next(patience) {
                Err(_) => return Ok(()),
                Ok(Some(batch)) => self.tell(out, batch)?,
                Ok(None) if silent_since.elapsed() < SSE_HEARTBEAT => continue,
                Ok(None) => sse::event(out, "heartbeat", None, &json!({"ts": clock::now()}))?,
            }
            out.flush()?;
            silent_since = Instant::now();
            if self.feed.rest(FEED_PAUSE).is_err() {
                return Ok(());
            }
        }
    }

    fn tell(&self, out: &mut dyn Write, batch: Batch) -> io::Result<()> {
        let now = clock::now();
        if let Some(live) = batch.live {
            sse::event(out, "state", None, &json!({"live": live, "ts": now}))?;
        }
        // Before the changes: the lists that the client loads now may be older than these.
        if batch.lost > 0 {
            sse::event(out, "reset", None, &json!({"lost": batch.lost, "ts": now}))?;
        }
        for change in batch.changes {
            let (name, data): (_, Value) = match change {
                Change::Run(run) => ("run", json!(*run)),
                Change::RunRemoved(run_id) => ("run_removed", json!({"run_id": run_id})),
                Change::Worker(record, heard) => {
                    ("worker", json!(workers::shown(&record, heard, self.disconnect_timeout)))
                }
                Change::WorkerRemoved(id) => ("worker_removed", json!({"worker_id": id})),
            };
            sse::event(out, name, None, &data)?;
        }
        Ok(())
    }
}
