//! Messages of the work queue that wait for nothing: neither to be delivered nor to be settled.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::check::Check;
use crate::bus::{Result, WorkQueue};
use crate::delivery::reconcile::stuck::stuck_messages;

/// Between two looks: the figures may come from nodes of a cluster that know different things.
const PAUSE: Duration = Duration::from_secs(1);

pub fn stuck(queue: &WorkQueue) -> Check {
    let check = Check::new("deliveries");
    let found = match seen_twice(queue) {
        Ok(found) if found.is_empty() => return check.with("details", json!({"state": "ok"})),
        Ok(found) => found,
        Err(e) => return check.failed(e),
    };
    let of_tag = |(tag, count): (&String, &u64)| format!("{count} of tag `{tag}`");
    let list: Vec<String> = found.iter().map(of_tag).collect();
    let mut check = check.with("stuck", json!(found));
    check.warn(format!(
        "jobs that NATS does not deliver any more: {}; a running gateway publishes them anew within half a \
         minute, so start one, or see its log when this stays",
        list.join(", ")
    ));
    check
}

fn seen_twice(queue: &WorkQueue) -> Result<BTreeMap<String, u64>> {
    let first = look(queue)?;
    if first.is_empty() {
        return Ok(first);
    }
    std::thread::sleep(PAUSE);
    let mut second = look(queue)?;
    second.retain(|tag, count| {
        *count = first.get(tag).map_or(0, |before| (*count).min(*before));
        *count > 0
    });
    Ok(second)
}

/// Stuck messages of each tag that has any.
fn look(queue: &WorkQueue) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for tag in queue.contents()?.by_tag.into_keys() {
        // Without a consumer nobody can have taken any.
        let Some(before) = queue.deliveries(&tag)? else { continue };
        let stored = queue.count(&tag)?;
        let Some(after) = queue.deliveries(&tag)? else { continue };
        let count = stuck_messages(before, stored, after);
        if count > 0 {
            found.insert(tag, count);
        }
    }
    Ok(found)
}
