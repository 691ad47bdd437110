//! Fetches the figures of the queue and the DLQ when a scrape has asked for them.

use std::time::Duration;

use super::Next;
use crate::bus::WorkQueue;
use crate::gateway::view::backlog::Backlog;
use crate::model::limits::MAX_METRIC_LABELS;

/// Between two looks whether they are wanted; a scrape kicks the thread.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

pub(super) fn run(queue: &WorkQueue, backlog: &Backlog) -> Next {
    if backlog.is_wanted() {
        let tags = queue.backlog(MAX_METRIC_LABELS);
        match tags.and_then(|tags| Ok((tags, queue.dlq_messages()?))) {
            Ok((tags, dlq_messages)) => backlog.renew(tags, dlq_messages),
            Err(e) => log::debug!(error = e.to_string(); "cannot look at the queue for metrics"),
        }
    }
    Next::InTime
}
