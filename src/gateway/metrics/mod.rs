//! What the gateway measures, and its text for Prometheus.
//!
//! Events (requests, ends of runs) are counted where they happen. States (runs, workers, the process)
//! are read at each scrape. The figures of the queue are in NATS; a thread fetches them, so that a dead
//! NATS never delays a scrape. **Invariant:** labels are bounded, and never a run id or free text.

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
