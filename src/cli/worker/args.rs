//! The command line of `pyoco-worker` (`docs/contract.md#command-lines`).

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::config;

const EXAMPLES: &str = "\
Examples:
  pyoco-worker --tags default,gpu --concurrency 4
  pyoco-worker --flow-resolver flows.py:resolve --python .venv/bin/python
  pyoco-worker --tags text --wheel-sync --flow-resolver textflows:resolve_flow
  pyoco-worker --run-once --poll-timeout 5    one job, then the end

SIGTERM, SIGHUP or Ctrl-C: takes no new job, finishes what runs, gives back the rest.
A worker that cannot work takes no jobs and says why (UNAVAILABLE); see docs/operations.md.
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
    /// Finds flows in Python by name [env: PYOCO_FLOW_RESOLVER]
    #[arg(long, value_name = "MODULE:FUNCTION|FILE.py:FUNCTION", value_parser = config::parse_resolver)]
    pub flow_resolver: Option<String>,
    /// The Python that executes them and those of documents; `off` executes none
    /// [env: PYOCO_PYTHON] [default: python3]
    #[arg(long, value_name = "PROGRAM", value_parser = config::parse_interpreter)]
    pub python: Option<String>,
    /// Variables that flows in Python may see, beside a few harmless ones; a trailing * stands for
    /// the rest of a name [env: PYOCO_RUN_ENV]
    #[arg(
        long,
        value_name = "NAME,PREFIX*",
        value_delimiter = ',',
        value_parser = config::parse_env_entry
    )]
    pub run_env: Vec<String>,
    /// Most memory of a run in Python, such as 512M or 1.5G [env: PYOCO_RUN_MEMORY_LIMIT]
    #[arg(long, value_name = "SIZE", value_parser = config::parse_memory_limit)]
    pub run_memory_limit: Option<u64>,
    /// Longest time that a run may execute; then it is FAILED [env: PYOCO_RUN_TIMEOUT_SEC]
    #[arg(long, value_name = "SECONDS", value_parser = config::parse_positive_seconds)]
    pub run_timeout_sec: Option<Duration>,
    /// Give runs the wheels that are uploaded for this worker's tags [env: PYOCO_WHEEL_SYNC_ENABLED]
    #[arg(long, overrides_with = "no_wheel_sync")]
    pub wheel_sync: bool,
    /// Do not, whatever the settings say
    #[arg(long)]
    pub no_wheel_sync: bool,
    /// Where wheels are unpacked; workers may share it [env: PYOCO_WHEEL_SYNC_DIR]
    /// [default: .pyoco/wheels]
    #[arg(long, value_name = "DIR")]
    pub wheel_sync_dir: Option<PathBuf>,
    /// Longest time between two looks at the registry [env: PYOCO_WHEEL_SYNC_INTERVAL_SEC] [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = config::parse_positive_seconds)]
    pub wheel_sync_interval_sec: Option<Duration>,
    /// For one wheel to be fetched, verified and unpacked [env: PYOCO_WHEEL_INSTALL_TIMEOUT_SEC]
    /// [default: 180]
    #[arg(long, value_name = "SECONDS", value_parser = config::parse_positive_seconds)]
    pub wheel_install_timeout_sec: Option<Duration>,
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
