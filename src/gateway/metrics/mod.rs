//! What the gateway measures, and its text for Prometheus.
//!
//! Events are counted where they happen; states are read at each scrape. A thread fetches the figures of the
//! queue, so that a dead NATS never delays a scrape. Labels are bounded, and never a run id or free text.

mod backlog;
mod exposition;
mod histogram;
mod process;
mod requests;
mod runs;
mod text;

pub use exposition::{Sources, exposition};
pub use requests::RequestFigures;
pub use runs::RunFigures;

#[derive(Default)]
pub struct Metrics {
    pub runs: RunFigures,
    pub requests: RequestFigures,
}

/// Stands for all values of a label beyond [`MAX_METRIC_LABELS`](crate::model::limits::MAX_METRIC_LABELS);
/// no tag and no route can look like it.
const OTHER: &str = "(other)";
