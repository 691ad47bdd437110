//! The command line of `pyoco-client` (`docs/contract.md#command-lines`).

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::output::Format;
use super::wheel::args::{WheelDelete, WheelHistory, WheelUpload, Wheels};

const EXAMPLES: &str = "\
Examples:
  pyoco-client submit --flow-name main --param x=1 --tag gpu
  pyoco-client submit-yaml --workflow-file flow.yaml --flow-name main --tag default --wait
  pyoco-client list --status RUNNING --output table
  pyoco-client watch 7f3a… --until-terminal --exit-status
  pyoco-client workers --output table
  pyoco-client cancel --run-id 7f3a… --wait
  pyoco-client wheel-upload --wheel-file dist/mytasks-1.0-py3-none-any.whl --tags gpu

Exit codes:
  0 done, 1 bad arguments, an HTTP error or a wait that timed out, 130 Ctrl-C;
  with --exit-status: 3 run FAILED, 4 run CANCELLED, 5 the wait timed out";

/// Submits, shows, watches and cancels runs through a gateway
#[derive(Debug, Parser)]
// Of a repeated option the last counts, as in the Python client.
#[command(
    name = "pyoco-client",
    version,
    after_help = EXAMPLES,
    disable_help_subcommand = true,
    args_override_self = true,
    arg_required_else_help = false
)]
pub struct Args {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, ClapArgs)]
pub struct Connection {
    /// The gateway [env: PYOCO_SERVER] [default: http://127.0.0.1:8000]
    #[arg(long, global = true, help_heading = "Connection", value_name = "URL")]
    pub server: Option<String>,
    /// The API key; in the environment it is hidden from other users [env: PYOCO_API_KEY]
    #[arg(long, global = true, help_heading = "Connection", value_name = "KEY")]
    pub api_key: Option<String>,
    /// The header that carries it [env: PYOCO_HTTP_API_KEY_HEADER] [default: X-API-Key]
    #[arg(long, global = true, help_heading = "Connection", value_name = "NAME")]
    pub api_key_header: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit a run by the name of its flow
    Submit(Submit),
    /// Submit a run of a flow.yaml
    SubmitYaml(SubmitYaml),
    /// Show a run's snapshot
    Get {
        /// The run
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        run_id: String,
        /// With the records of its tasks
        #[arg(long)]
        records: bool,
    },
    /// Show a run's tasks with their records
    Tasks {
        /// The run
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        run_id: String,
        /// How to show them
        #[arg(long, value_enum, default_value_t = Format::Json)]
        output: Format,
    },
    /// List the newest runs
    List(List),
    /// List runs by pages, or those changed since a time
    ListVnext(ListVnext),
    /// Watch a run as it changes
    Watch(Watch),
    /// Cancel a run
    Cancel(Cancel),
    /// List workers
    Workers(Workers),
    /// List the wheels of the registry
    Wheels(Wheels),
    /// List what was uploaded and deleted, newest first
    WheelHistory(WheelHistory),
    /// Upload a wheel, from which workers get its code
    WheelUpload(WheelUpload),
    /// Delete a wheel
    WheelDelete(WheelDelete),
    /// Show the gateway's figures, as Prometheus reads them
    Metrics,
    /// Write the completions for a shell to stdout
    Completions {
        /// bash, zsh, fish, …
        shell: Shell,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Submit {
    /// The flow
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub flow_name: String,
    /// Parameters as a JSON object, e.g. '{"x":1}'
    #[arg(long, value_name = "JSON")]
    pub params: Option<String>,
    /// A file with a JSON object of parameters
    #[arg(long, value_name = "FILE")]
    pub params_file: Option<PathBuf>,
    /// One parameter, JSON if it parses, else a string; wins over --params, which wins over
    /// --params-file
    #[arg(long, value_name = "KEY=VALUE")]
    pub param: Vec<String>,
    /// Which workers: the routing tag
    #[arg(long)]
    pub tag: Option<String>,
    /// Free labels, separated by commas
    #[arg(long, value_name = "A,B")]
    pub tags: Option<String>,
    /// The same key gives the same run, so that a repeated submit starts nothing twice
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    #[command(flatten)]
    pub wait: SubmitWait,
}

#[derive(Debug, ClapArgs)]
pub struct SubmitYaml {
    /// The flow.yaml
    #[arg(long, value_name = "FILE")]
    pub workflow_file: PathBuf,
    /// A name for the flow
    #[arg(long, value_name = "NAME")]
    pub flow_name: String,
    /// Which workers: the routing tag
    #[arg(long)]
    pub tag: String,
    /// The same key gives the same run, so that a repeated submit starts nothing twice
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    #[command(flatten)]
    pub wait: SubmitWait,
}

#[derive(Debug, ClapArgs)]
pub struct SubmitWait {
    /// Wait for the end of the run, then show its snapshot too
    #[arg(long)]
    pub wait: bool,
    /// How long to wait; for ever when left out
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = seconds)]
    pub timeout_sec: Option<f64>,
    /// Exit with 3 when the run FAILED, 4 when it was CANCELLED, 5 when the wait timed out
    #[arg(long, requires = "wait")]
    pub exit_status: bool,
}

#[derive(Debug, ClapArgs)]
pub struct List {
    #[command(flatten)]
    pub filter: Filter,
    /// How to show them
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub output: Format,
}

#[derive(Debug, ClapArgs)]
pub struct ListVnext {
    #[command(flatten)]
    pub filter: Filter,
    /// Only runs changed after this time, in unix seconds
    #[arg(long, value_name = "SECONDS")]
    pub updated_after: Option<f64>,
    /// `next_cursor` of the page before
    #[arg(long)]
    pub cursor: Option<String>,
    /// Only runs of the flow.yaml with this hash
    #[arg(long, value_name = "HEX")]
    pub workflow_yaml_sha256: Option<String>,
    /// How to show them
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub output: Format,
}

#[derive(Debug, ClapArgs)]
pub struct Filter {
    /// PENDING, RUNNING, CANCELLING, COMPLETED, FAILED or CANCELLED
    #[arg(long)]
    pub status: Option<String>,
    /// Only runs of this flow
    #[arg(long, value_name = "NAME")]
    pub flow: Option<String>,
    /// Only runs with this routing tag
    #[arg(long)]
    pub tag: Option<String>,
    /// Whole snapshots instead of summaries
    #[arg(long)]
    pub full: bool,
    /// At most this many, 1 to 200 [default: 50]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub limit: Option<i64>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = WATCH_OUTPUT)]
pub struct Watch {
    /// The run
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub run_id: String,
    /// With the records of its tasks
    #[arg(long)]
    pub records: bool,
    /// Only snapshots written at this time or later, in unix seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub since: Option<f64>,
    /// How long to watch; 60 when left out, with --until-terminal for ever
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout_sec: Option<f64>,
    /// At most this many events, heartbeats included; 0 means no bound
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_events: u64,
    /// End when the run has ended
    #[arg(long)]
    pub until_terminal: bool,
    /// How to show them; when left out, a line of progress on a terminal, else JSON
    #[arg(long, value_enum)]
    pub output: Option<WatchFormat>,
    /// Exit with 3 when the run FAILED, 4 when it was CANCELLED, 5 when the wait timed out
    #[arg(long, requires = "until_terminal")]
    pub exit_status: bool,
}

const WATCH_OUTPUT: &str = "\
A connection that breaks is made again for up to 30 seconds, and goes on where it was.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WatchFormat {
    /// One event per line, for programs
    Json,
    /// Time, event, status and run, separated by tabs
    Status,
}

#[derive(Debug, ClapArgs)]
pub struct Workers {
    /// Only those that are there, or all that are remembered
    #[arg(long, value_enum)]
    pub scope: Option<Scope>,
    /// RUNNING, IDLE, UNAVAILABLE, STOPPED_GRACEFUL or DISCONNECTED
    #[arg(long)]
    pub state: Option<String>,
    /// Also those that an operator has hidden
    #[arg(long)]
    pub include_hidden: bool,
    /// At most this many, 1 to 500 [default: 100]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub limit: Option<i64>,
    /// How to show them
    #[arg(long, value_enum, default_value_t = WorkersFormat::Json)]
    pub output: WorkersFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// RUNNING and IDLE (the default)
    Active,
    /// Also stopped and lost ones
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkersFormat {
    /// One document per line, for programs
    Json,
    /// Columns, for people
    Table,
    /// A row per wheel that a worker has installed
    Plugins,
}

#[derive(Debug, ClapArgs)]
pub struct Cancel {
    /// The run
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub run_id: String,
    /// Why; kept in its snapshot
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Wait for the end of the run
    #[arg(long)]
    pub wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout_sec: f64,
    /// Exit with 3 when the run FAILED, 4 when it is CANCELLED, 5 when the wait timed out
    #[arg(long, requires = "wait")]
    pub exit_status: bool,
}

/// A time to wait; a century is as good as for ever and cannot overflow a clock.
fn seconds(text: &str) -> Result<f64, String> {
    const CENTURY: f64 = 100.0 * 366.0 * 86_400.0;
    match text.trim().parse::<f64>() {
        Ok(value) if (0.0..=CENTURY).contains(&value) => Ok(value),
        _ => Err("not a number of seconds from 0 on".to_owned()),
    }
}
