//! Streams, buckets and consumers: whose they are, their settings, and whether a write works.

use serde_json::{Value, json};

use super::check::{Check, Report};
use super::room;
use crate::bus::{Bus, Difference, Error, Fix, Inspected, Result, Server};

const BY_DOCTOR: &str = "`pyoco-server-admin doctor --fix` changes it";
const BY_HAND: &str = "change it with the tools of NATS, or let the settings of all programs ask for what is \
                       there";
/// For a smaller value of what workers read when they start.
const BY_HAND_WITHOUT_WORKERS: &str = "workers that run rely on what is there: stop them, change it with the \
                                       tools of NATS, and start them, or ask for what is there";
/// Settings of consumers that workers rely on.
const READ_AT_START: [&str; 2] = ["ack_wait", "max_deliver"];
/// Settings that are shown in seconds.
const TIMES: [&str; 3] = ["ack_wait", "max_age", "duplicate_window"];

/// Each stream by its name, as [`Bus::inspect`] finds it.
type Streams = [(String, Result<Option<Inspected>>)];

pub fn check(bus: &Bus, streams: &Streams, server: Option<&Server>, report: &mut Report) {
    let is_in_cluster = server.is_some_and(|server| server.is_in_cluster);
    for (name, found) in streams {
        let check = Check::new(name.as_str());
        report.add(match found {
            Ok(Some(stream)) => checked(check, stream, is_in_cluster),
            Ok(None) => check.with("details", json!({"state": "missing, created when needed"})),
            Err(e) => check.failed(e),
        });
    }
    let (stream, consumers) = bus.inspect_consumers();
    let summary = Check::new(format!("consumers of {stream}"));
    let consumers = match consumers {
        Ok(consumers) => consumers,
        Err(e) => return report.add(summary.failed(e)),
    };
    report.add(summary.with("details", json!({"state": "ok", "consumers": consumers.len()})));
    for (name, found) in consumers {
        // There may be thousands, so those that are well have no line.
        let check = Check::new(format!("consumer {name}"));
        match found {
            Ok(consumer) if consumer.differences.is_empty() => {}
            Ok(consumer) => report.add(with_differences(check, &consumer, is_in_cluster)),
            Err(e) => report.add(check.failed(e)),
        }
    }
}

fn checked(check: Check, stream: &Inspected, is_in_cluster: bool) -> Check {
    let is_in_cluster = is_in_cluster || stream.is_in_cluster();
    let (config, state) = (&stream.info["config"], &stream.info["state"]);
    let details = json!({
        "state": "ok",
        "messages": state["messages"],
        "bytes": state["bytes"],
        "replicas": config["num_replicas"],
        "storage": config["storage"],
    });
    let mut check = with_differences(check.with("details", details), stream, is_in_cluster);
    let is_asked_for_more = stream.differences.iter().any(|d| d.setting == "num_replicas");
    if is_in_cluster && config["num_replicas"] == 1 && !is_asked_for_more {
        check.warn(
            "there is one replica though NATS is a cluster: its messages are lost with one node, and not \
             available while that is down; set PYOCO_JS_REPLICAS=3 for all programs and run \
             `pyoco-server-admin doctor --fix`",
        );
    }
    room::of_stream(&mut check, config, state);
    check
}

fn with_differences(mut check: Check, found: &Inspected, is_in_cluster: bool) -> Check {
    let is_in_cluster = is_in_cluster || found.is_in_cluster();
    for difference in &found.differences {
        let Difference { setting, is, asked, .. } = difference;
        let way_out = match () {
            () if is_fixable(difference, is_in_cluster) => BY_DOCTOR,
            () if READ_AT_START.contains(setting) => BY_HAND_WITHOUT_WORKERS,
            () => BY_HAND,
        };
        let (is, asked) = (text(setting, is), text(setting, asked));
        check.warn(format!("{setting} is {is}, and {asked} is asked for: {way_out}"));
    }
    if found.differences.is_empty() {
        return check;
    }
    let differences = found.differences.iter();
    let list: Vec<Value> =
        differences.map(|d| json!({"setting": d.setting, "is": d.is, "asked": d.asked})).collect();
    check.with("differences", list)
}

fn is_fixable(difference: &Difference, is_in_cluster: bool) -> bool {
    match difference.fix {
        Fix::Safe => true,
        Fix::NeedsNodes => is_in_cluster,
        Fix::ByHand => false,
    }
}

/// Changes the settings that can be changed without a loss, one line for each.
pub fn fix(bus: &Bus, report: &mut Report) {
    let is_in_cluster = bus.server().is_some_and(|server| server.is_in_cluster);
    fix_metadata(bus, report);
    // The replicas of a consumer follow those of its stream. What cannot be read or is not ours is told by
    // the checks that follow.
    let streams = bus.inspect().into_iter().filter_map(|(_, found)| found.ok().flatten());
    streams.for_each(|stream| fix_one(bus, &stream, is_in_cluster, report));
    let (_, consumers) = bus.inspect_consumers();
    let consumers = consumers.unwrap_or_default().into_iter().filter_map(|(_, found)| found.ok());
    consumers.for_each(|consumer| fix_one(bus, &consumer, is_in_cluster, report));
}

/// Writes into streams whose they are; that protects them, and nothing depends on it.
fn fix_metadata(bus: &Bus, report: &mut Report) {
    match bus.mark_ownership(bus.request_timeout()) {
        Ok(changed) => {
            for stream in changed {
                report.add(Check::new(stream).with("fixed", "metadata").with("is", "names its installation"));
            }
        }
        // Its own line says so.
        Err(Error::Foreign(_)) => {}
        Err(e) => {
            let mut check = Check::new("metadata");
            check.warn(format!("cannot write into the streams which installation they belong to: {e}"));
            report.add(check);
        }
    }
}

fn fix_one(bus: &Bus, found: &Inspected, is_in_cluster: bool, report: &mut Report) {
    let is_in_cluster = is_in_cluster || found.is_in_cluster();
    let name = if found.is_consumer() { format!("consumer {}", found.name) } else { found.name.clone() };
    for difference in found.differences.iter().filter(|d| is_fixable(d, is_in_cluster)) {
        let check = Check::new(name.as_str());
        let outcome = bus.fix(found, difference);
        report.add(match outcome {
            Ok(()) => fixed(check, difference),
            Err(e) => check.failed(format!("cannot change {}: {e}", difference.setting)),
        });
    }
}

fn fixed(check: Check, difference: &Difference) -> Check {
    let Difference { setting, is, asked, .. } = difference;
    check.with("fixed", *setting).with("was", is.clone()).with("is", asked.clone())
}

fn text(setting: &str, value: &Value) -> String {
    match value {
        Value::Null => "no limit".to_owned(),
        Value::String(text) => text.clone(),
        seconds if TIMES.contains(&setting) => format!("{seconds}s"),
        other => other.to_string(),
    }
}

/// Stores something in the bucket of runs, as `/readyz` does. A bucket that is missing is not created for it.
pub fn writes(bus: &Bus, found: &Streams) -> Check {
    let runs = bus.runs();
    let check = Check::new("writes");
    let stream = format!("KV_{}", runs.name());
    match found.iter().find(|(name, _)| *name == stream) {
        Some((_, Ok(Some(_)))) => {}
        Some((_, Ok(None))) => {
            return check.with("details", json!({"state": "not tried: the bucket is missing"}));
        }
        // Its own line says what is wrong.
        _ => return check.with("details", json!({"state": "not tried"})),
    }
    match runs.test_write() {
        Ok(()) => check.with("details", json!({"state": "ok"})),
        Err(e) => check.failed(format!("a write to {stream} fails: {e}; {}", way_out(&e))),
    }
}

fn way_out(error: &Error) -> &'static str {
    match error {
        e if e.is_store_full() => "make room in NATS, or raise its limits",
        Error::Timeout { .. } => {
            "see that the NATS user may publish to the bucket, and that NATS has a leader"
        }
        _ => "see the log of the nats-server",
    }
}
