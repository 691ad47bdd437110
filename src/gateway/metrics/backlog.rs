//! What waits in the queue and in the DLQ.

use super::text::{Kind, Text};
use crate::bus::TagBacklog;
use crate::gateway::view::backlog::Queued;
use crate::model::clock;

/// `default_tag` is there also when it is empty.
pub(super) fn write(queued: &Queued, default_tag: &str, text: &mut Text) {
    let is_kept = queued.is_kept();
    let mut tags: Vec<&TagBacklog> = if is_kept { queued.tags.iter().collect() } else { Vec::new() };
    let none = TagBacklog { tag: default_tag.to_owned(), ..TagBacklog::default() };
    if is_kept && !tags.iter().any(|one| one.tag == default_tag) {
        tags.push(&none);
    }
    let mut put = |name, help, value: &dyn Fn(&TagBacklog) -> f64| {
        let mut family = text.family(name, Kind::Gauge, help);
        for one in &tags {
            family.sample(&[("tag", &one.tag)], value(one));
        }
    };
    put("pyoco_queue_depth", "Jobs that no worker has taken yet.", &|one| one.waiting as f64);
    let help = "Jobs that workers have taken and not ended.";
    put("pyoco_queue_in_flight", help, &|one| one.in_flight as f64);
    let help = "Age of the oldest job that no worker has taken yet; 0 without one.";
    put("pyoco_queue_oldest_age_seconds", help, &|one| {
        one.oldest_waiting.map_or(0.0, |at| (clock::now() - at).max(0.0))
    });
    let help = "Entries of the DLQ, as of the last contact with NATS.";
    text.single("pyoco_dlq_messages_total", Kind::Gauge, help, queued.dlq_messages as f64);
}
