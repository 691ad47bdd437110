//! All figures in one text, in a fixed order.

use std::time::Duration;

use super::text::{Kind, Text};
use super::{Metrics, backlog, process};
use crate::bus::Bus;
use crate::gateway::view::WheelRegistry;
use crate::gateway::view::backlog::Backlog;
use crate::gateway::view::hub::Hub;
use crate::gateway::view::runs::RunIndex;
use crate::gateway::view::workers::{Seen, WorkerMirror};
use crate::model::run::RunStatus;
use crate::model::wheel::SyncResult;
use crate::model::worker::WorkerState;

/// Workers whose last sign of life is a metric of its own; the newest count.
const MAX_METRIC_WORKERS: usize = 500;

pub struct Sources<'a> {
    pub bus: &'a Bus,
    pub runs: &'a RunIndex,
    pub workers: &'a WorkerMirror,
    pub wheels: &'a WheelRegistry,
    pub hub: &'a Hub,
    pub backlog: &'a Backlog,
    pub metrics: &'a Metrics,
    /// Checks of keys by their outcome, and hashes that they took; `None` when there are none.
    pub auth: Option<(Vec<(&'static str, u64)>, u64)>,
    pub default_tag: &'a str,
    /// Silence after which a worker counts as disconnected.
    pub disconnect_timeout: Duration,
}

pub fn exposition(from: &Sources<'_>) -> String {
    let mut text = Text::default();
    text.family("pyoco_build_info", Kind::Gauge, "1, with the version of this gateway.")
        .sample(&[("version", crate::VERSION)], 1.0);
    let link = from.bus.state();
    text.single("pyoco_nats_up", Kind::Gauge, "Whether NATS is connected.", flag(link.connected));
    let help = "How often the connection to NATS came back or was replaced.";
    text.single("pyoco_nats_reconnects_total", Kind::Counter, help, link.reconnects as f64);
    let help = "Whether figures of runs and workers are current.";
    let live = from.runs.is_live() && from.workers.is_live();
    text.single("pyoco_view_live", Kind::Gauge, help, flag(live));
    runs(from, &mut text);
    from.metrics.runs.write(&mut text);
    backlog::write(&from.backlog.newest(link.connected), from.default_tag, &mut text);
    workers(from, &mut text);
    wheels(from, &mut text);
    from.metrics.requests.write(&mut text);
    auth(from, &mut text);
    let help = "Open streams of events.";
    text.single("pyoco_sse_clients", Kind::Gauge, help, from.hub.open_streams() as f64);
    let help = "States that were skipped because a client reads too slowly; it gets the newest.";
    text.single("pyoco_sse_dropped_total", Kind::Counter, help, from.hub.skipped() as f64);
    process::write(&mut text);
    text.finish()
}

fn auth(from: &Sources<'_>, text: &mut Text) {
    let Some((outcomes, hashes)) = &from.auth else { return };
    let help = "Requests with and without an API key, by what came of the check.";
    let mut family = text.family("pyoco_auth_checks_total", Kind::Counter, help);
    for (outcome, count) in outcomes {
        family.sample(&[("outcome", outcome)], *count as f64);
    }
    let help = "API keys that had to be hashed; a key that was seen before need not.";
    text.single("pyoco_auth_hashes_total", Kind::Counter, help, *hashes as f64);
}

fn runs(from: &Sources<'_>, text: &mut Text) {
    let counts = from.runs.counts();
    let mut put = |name, help, counts: &[(RunStatus, usize)]| {
        let mut family = text.family(name, Kind::Gauge, help);
        for (status, count) in counts {
            family.sample(&[("status", status.as_str())], *count as f64);
        }
    };
    put("pyoco_runs", "Runs by status.", &counts);
    put("pyoco_runs_total", "The same, under the name of the Python gateway.", &counts);
    let help = "Runs by status that were written last today, by the gateway's time zone.";
    put("pyoco_runs_today_total", help, &from.runs.counts_today());
}

fn workers(from: &Sources<'_>, text: &mut Text) {
    let timeout = from.disconnect_timeout;
    let all = from.workers.all();
    let help = "Workers that are RUNNING or IDLE.";
    let alive = all.iter().filter(|seen| seen.state(timeout).takes_jobs()).count();
    text.single("pyoco_workers_alive_total", Kind::Gauge, help, alive as f64);
    let help = "Worker records by state; hidden ones count too.";
    let mut family = text.family("pyoco_workers", Kind::Gauge, help);
    for one in WorkerState::ALL {
        let count = all.iter().filter(|seen| seen.state(timeout) == one).count();
        family.sample(&[("state", one.as_str())], count as f64);
    }
    // A worker that has stopped, or that an operator has hidden, must raise no alert.
    let mut watched: Vec<&Seen> = all
        .iter()
        .filter(|seen| !seen.record.hidden && seen.record.state != WorkerState::StoppedGraceful)
        .filter(|seen| seen.record.seen_at().is_some())
        .collect();
    watched.sort_by(|a, b| b.heard.cmp(&a.heard).then_with(|| a.record.worker_id.cmp(&b.record.worker_id)));
    watched.truncate(MAX_METRIC_WORKERS);
    let name = "pyoco_worker_heartbeat_timestamp_seconds";
    let help = "When a worker was heard of last; without stopped and hidden ones.";
    let mut family = text.family(name, Kind::Gauge, help);
    for seen in &watched {
        family.sample(&[("worker", &seen.record.worker_id)], seen.heard_at());
    }
    let help = "Whether a worker can execute runs: 0 when it is UNAVAILABLE or DISCONNECTED.";
    let mut family = text.family("pyoco_worker_healthy", Kind::Gauge, help);
    for seen in &watched {
        family.sample(&[("worker", &seen.record.worker_id)], flag(seen.state(timeout).takes_jobs()));
    }
}

fn wheels(from: &Sources<'_>, text: &mut Text) {
    let timeout = from.disconnect_timeout;
    let wheels = from.wheels.shelf.all();
    text.single("pyoco_wheels", Kind::Gauge, "Wheels in the registry.", wheels.len() as f64);
    let help = "Bytes of all wheels in the registry.";
    let bytes: u64 = wheels.iter().map(|meta| meta.size).sum();
    text.single("pyoco_wheels_bytes", Kind::Gauge, help, bytes as f64);
    let alive = |seen: &Seen| seen.state(timeout).is_alive();
    let workers: Vec<Seen> = from.workers.all().into_iter().filter(alive).collect();
    let help = "Workers that are RUNNING, IDLE or UNAVAILABLE, by how they last synchronised their wheels.";
    let mut family = text.family("pyoco_workers_wheel_sync", Kind::Gauge, help);
    for result in SyncResult::ALL.map(SyncResult::as_str) {
        let is_it = |seen: &&Seen| seen.record.wheel_sync["last_result"] == result;
        family.sample(&[("result", result)], workers.iter().filter(is_it).count() as f64);
    }
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}
