//! How much room is left: in streams that refuse what is beyond their limits, in the account, in the server.

use serde_json::{Value, json};

use super::check::Check;
use super::server::Monitor;
use crate::bus::{Bus, Error};

/// From here on there is a warning.
const NEARLY_FULL: f64 = 0.9;

/// A stream that drops its oldest messages is never full.
pub fn of_stream(check: &mut Check, config: &Value, state: &Value) {
    if config["discard"] != "new" {
        return;
    }
    let (messages, bytes) = (number(&state["messages"]), number(&state["bytes"]));
    let way_out = "raise it with the tools of NATS, or let workers take more";
    judge(check, "max_msgs", (messages, 0), &config["max_msgs"], way_out);
    // A stream is full when the next message does not fit any more.
    let message = bytes.checked_div(messages).unwrap_or(0);
    let way_out = "raise it with the tools of NATS, or remove what is not needed any more";
    judge(check, "max_bytes", (bytes, message), &config["max_bytes"], way_out);
}

/// What the account may use of JetStream.
pub fn account(bus: &Bus) -> Check {
    let mut check = Check::new("account");
    let info = match bus.account() {
        Ok(info) => info,
        Err(Error::Timeout { .. }) => {
            let reason = "no answer: this NATS user may not ask `$JS.API.INFO`, which no program needs";
            return check.with("details", json!({"state": "unknown"})).with("reason", reason);
        }
        Err(e) => return check.failed(e),
    };
    let tiers = info["tiers"].as_object().into_iter().flatten();
    // In an account with tiers the limits are theirs.
    let places: Vec<(String, &Value)> = tiers
        .map(|(tier, figures)| (format!(" of tier {tier}"), figures))
        .chain([(String::new(), &info)])
        .collect();
    for (place, figures) in places {
        for kind in ["storage", "memory"] {
            let limit = &figures["limits"][format!("max_{kind}")];
            usage(&mut check, &format!("max_{kind}{place}"), kind, figures, limit);
        }
    }
    let figure = |name: &str| info[name].clone();
    check.with(
        "details",
        json!({
            "state": "ok",
            "storage": figure("storage"),
            "max_storage": info["limits"]["max_storage"],
            "memory": figure("memory"),
            "max_memory": info["limits"]["max_memory"],
        }),
    )
}

/// What the server as a whole has, as its monitoring says; nothing when that is unknown.
pub fn store(monitor: &Monitor) -> Option<Check> {
    let (config, stats) = monitor.jetstream().ok()?;
    let mut check = Check::new("store");
    usage(&mut check, "max_file_store of the server", "storage", stats, &config["max_storage"]);
    let (used, reserved, most) = (&stats["storage"], &stats["reserved_storage"], &config["max_storage"]);
    Some(check.with("details", json!({"bytes": used, "reserved": reserved, "max_bytes": most})))
}

fn usage(check: &mut Check, what: &str, kind: &str, figures: &Value, limit: &Value) {
    judge(check, what, (number(&figures[kind]), 0), limit, "raise it, or remove what is not needed any more");
    let reserved = number(&figures[format!("reserved_{kind}")]);
    if let Some(share) = share(reserved, limit)
        && share >= NEARLY_FULL
    {
        check.warn(format!(
            "streams have reserved {} of {what} ({reserved} of {limit} bytes), so no further stream may fit: \
             raise it",
            percent(share)
        ));
    }
}

/// `used`: what is there, and what the next message takes.
fn judge(check: &mut Check, what: &str, (used, next): (u64, u64), limit: &Value, way_out: &str) {
    let Some(taken) = share(used, limit).filter(|taken| *taken >= NEARLY_FULL) else { return };
    let is_full =
        share(used + next, limit).is_some_and(|taken| if next == 0 { taken >= 1.0 } else { taken > 1.0 });
    if is_full {
        check.fail(format!("{what} is reached ({used} of {limit}): NATS refuses new messages; {way_out}"));
    } else {
        check.warn(format!("{} of {what} is used ({used} of {limit}): {way_out}", percent(taken)));
    }
}

/// `None` without a limit.
fn share(used: u64, limit: &Value) -> Option<f64> {
    let limit = limit.as_i64().filter(|limit| *limit > 0)?;
    Some(used as f64 / limit as f64)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", (share * 100.0).floor())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::check::Report;
    use super::*;

    fn judged(config: Value, state: Value) -> (bool, bool) {
        let mut check = Check::new("s");
        of_stream(&mut check, &config, &state);
        let mut report = Report::default();
        report.add(check);
        let line: Value = serde_json::from_str(report.text()).unwrap();
        (line["ok"] == true, line["warning"].is_string())
    }

    #[test]
    fn a_stream_is_full_when_the_next_message_does_not_fit() {
        let limited = |discard: &str| json!({"discard": discard, "max_msgs": 100, "max_bytes": 1000});
        let holds = |messages: u64, bytes: u64| json!({"messages": messages, "bytes": bytes});
        assert_eq!(judged(limited("new"), holds(89, 100)), (true, false));
        assert_eq!(judged(limited("new"), holds(90, 100)), (true, true));
        assert_eq!(judged(limited("new"), holds(100, 100)), (false, false));
        assert_eq!(judged(limited("new"), holds(9, 900)), (true, true));
        assert_eq!(judged(limited("new"), holds(7, 950)), (false, false));
        assert_eq!(judged(limited("new"), holds(1, 600)), (true, false));
        assert_eq!(judged(limited("old"), holds(100, 1000)), (true, false));
        let unlimited = json!({"discard": "new", "max_msgs": -1, "max_bytes": -1});
        assert_eq!(judged(unlimited, holds(100, 1000)), (true, false));
    }
}
