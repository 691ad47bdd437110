//! What the gateway measures, and its text for Prometheus.
//!
//! Figures that are events (requests, ends of runs) are counted where they happen; figures that are
//! states (runs, workers, the process) are read when somebody asks; figures of the queue live in
//! NATS and are fetched by a thread, so that a dead NATS never holds a scrape up. Labels are bounded,
//! and never a run id or free text.

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

/// All figures that are not read off something else.
#[derive(Default)]
pub struct Metrics {
    pub runs: RunFigures,
    pub requests: RequestFigures,
}

/// Stands for all values of a label beyond [`MAX_METRIC_LABELS`](crate::model::limits::MAX_METRIC_LABELS);
/// no tag and no route can look like it.
const OTHER: &str = "(other)";
