//! The command line of `pyoco-worker` (CONTRACT §5).

use std::num::NonZeroUsize;

use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  pyoco-worker --tags default,gpu --concurrency 4
  pyoco-worker --run-once --poll-timeout 5    one job, then the end

SIGTERM or Ctrl-C: takes no new job, finishes what runs, gives back the rest.
Settings come from flags, then the environment (PYOCO_…), then .env; see docs/config.md.";

/// Pulls jobs by tag and executes them
#[derive(Debug, Parser)]
#[command(name = "pyoco-worker", version, after_help = EXAMPLES, args_override_self = true)]
pub struct Args {
    /// Where NATS is [env: PYOCO_NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(long)]
    pub nats_url: Option<String>,
    /// Tags to serve, separated by commas [default: PYOCO_DEFAULT_TAG]
    #[arg(long, value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Name in the registry; a new start under the same name takes the record over
    /// [default: <hostname>-<pid>]
    #[arg(long)]
    pub worker_id: Option<String>,
    /// Runs executed at once [env: PYOCO_WORKER_CONCURRENCY] [default: number of CPUs]
    #[arg(long)]
    pub concurrency: Option<NonZeroUsize>,
    /// Execute one job, then end
    #[arg(long)]
    pub run_once: bool,
    /// With --run-once: end when no job came within this time
    #[arg(long, default_value_t = 1.0)]
    pub poll_timeout: f64,
    /// How long a stop waits for what runs
    #[arg(long, default_value_t = 30.0)]
    pub drain_timeout_sec: f64,
    /// trace, debug, info, warning or error [env: PYOCO_LOG_LEVEL] [default: info]
    #[arg(long)]
    pub log_level: Option<String>,
}
