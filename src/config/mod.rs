//! Every setting, read once at the top: flag > environment > `.env` > default (`docs/config.md`).
//!
//! [`Config::load`] turns a [`Source`] into plain values. Floors below `cli` are handed these
//! values and read neither environment nor arguments. A value that does not parse is a
//! [`Warning`] by name, and the default is used. An empty value counts as unset.

mod contact;
mod dotenv;
mod namespace;
mod python;
mod reader;
mod source;

use std::path::PathBuf;
use std::time::Duration;

pub use namespace::Namespace;
pub use python::{PythonConfig, parse_env_entry, parse_interpreter, parse_memory_limit, parse_resolver};
pub use reader::{Setting, Warning, parse_positive_seconds};
pub use source::{Origin, Source};

use crate::model::name;
use crate::model::network::Network;
use reader::Reader;

/// A value that cannot be read must end the program: the default would be another installation.
pub const NAMESPACE: &str = "PYOCO_NAMESPACE";

/// All settings of all four programs.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// Names and settings of what we keep in NATS.
    pub resources: ResourceConfig,
    /// Timing and bounds of runs.
    pub run: RunConfig,
    /// Timing of the records that workers write of themselves.
    pub registry: RegistryConfig,
    /// How the gateway listens and whom it lets in.
    pub http: HttpConfig,
    /// How API keys are hashed.
    pub auth: AuthConfig,
    /// The wheels of a worker.
    pub wheels: WheelConfig,
    /// Level and form of log lines.
    pub log: LogConfig,
    /// How flows in Python are executed.
    pub python: PythonConfig,
    /// Slots of a worker; unset means the number of CPUs.
    pub worker_concurrency: Option<usize>,
}

/// How to reach NATS. Its `Debug` shows no secret.
#[derive(Clone, PartialEq)]
pub struct NatsConfig {
    /// One or several `nats://` or `tls://` URLs, separated by commas.
    pub url: String,
    /// Path of a `.creds` file.
    pub creds: Option<PathBuf>,
    /// User name, with `password`.
    pub user: Option<String>,
    /// Password of `user`; unset sends none.
    pub password: Option<String>,
    /// A token instead of a user.
    pub token: Option<String>,
    /// File with the seed of an NKey.
    pub nkey_seed_file: Option<PathBuf>,
    /// What our reply subjects begin with.
    pub inbox_prefix: String,
    /// JetStream domain; unset means that of the server.
    pub js_domain: Option<String>,
    /// PEM file with the root certificates to trust.
    pub tls_ca: Option<PathBuf>,
    /// PEM file with our certificate.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with our key.
    pub tls_key: Option<PathBuf>,
    /// Deadline of one request to NATS.
    pub request_timeout: Duration,
    /// The monitoring endpoint of nats-server, `http://host:port`.
    pub monitor_url: Option<String>,
}

/// What the subjects of JetStream's API begin with, outside of a domain.
pub const JS_API: &str = "$JS.API.";

impl NatsConfig {
    /// What the subjects of JetStream's API begin with.
    pub fn api_prefix(&self) -> String {
        match &self.js_domain {
            Some(domain) => format!("$JS.{domain}.API."),
            None => JS_API.to_owned(),
        }
    }
}

impl std::fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsConfig")
            .field("url", &reader::masked_url(&self.url))
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

/// Names and settings of streams and buckets (`docs/spec.md#in-nats`).
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceConfig {
    /// Part of all names that have no setting of their own, and of the defaults of the others.
    pub namespace: Namespace,
    /// Prefix of job subjects; the tag follows.
    pub work_subject_prefix: String,
    /// Prefix of DLQ subjects.
    pub dlq_subject_prefix: String,
    /// Name of the stream that keeps DLQ entries.
    pub dlq_stream: String,
    /// Age after which a DLQ entry goes.
    pub dlq_max_age: Duration,
    /// How many DLQ entries are kept; the oldest go first.
    pub dlq_max_msgs: i64,
    /// How many bytes the DLQ may take; the oldest entries go first.
    pub dlq_max_bytes: i64,
    /// Bucket of run snapshots.
    pub runs_bucket: String,
    /// Bucket of worker records.
    pub workers_bucket: String,
    /// TTL of worker records; unset keeps them until the gateway's retention removes them.
    pub workers_ttl: Option<Duration>,
    /// Bucket of API key records.
    pub auth_bucket: String,
    /// Object store of wheels.
    pub wheels_bucket: String,
    /// Largest wheel, and largest store, in bytes.
    pub wheels_max_bytes: i64,
    /// Bucket of uploads and deletions of wheels.
    pub wheel_history_bucket: String,
    /// How long they are kept.
    pub wheel_history_ttl: Duration,
    /// How long a job may go without an ACK before it is delivered again.
    pub ack_wait: Duration,
    /// How often a job is delivered at most.
    pub max_deliver: i64,
    /// Jobs of one tag in flight at most.
    pub max_ack_pending: i64,
    /// Replicas of whatever we create.
    pub replicas: u32,
}

/// Timing and bounds of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// Tag of a submit that names none.
    pub default_tag: String,
    /// A live run's snapshot is written at least this often.
    pub heartbeat_interval: Duration,
    /// Between two in-progress ACKs; kept under `ack_wait`.
    pub ack_progress_interval: Duration,
    /// How long a worker without an answer from NATS goes on with its runs; unset means for ever.
    pub stop_without_nats: Option<Duration>,
    /// With more than this in `stop_without_nats`, another worker may begin a run before this one has ended
    /// it.
    pub longest_stop_without_nats: Duration,
    /// How long a Python run goes on without a sign of life of its worker's process; a native one then begins
    /// no further task.
    pub execution_lease: Duration,
    /// Between a cancel and the use of force.
    pub cancel_grace_period: Duration,
    /// From SIGTERM to SIGKILL for the processes of a run.
    pub term_grace: Duration,
    /// How long one attempt of a run may execute; unset means for ever.
    pub timeout: Option<Duration>,
    /// Largest snapshot document in bytes.
    pub max_snapshot_bytes: usize,
    /// Largest `flow.yaml` in bytes.
    pub max_workflow_bytes: u64,
    /// Whether a failed flow gets a DLQ entry.
    pub dlq_execution_errors: bool,
}

/// Timing of the records that workers write of themselves, and of what is believed of them.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistryConfig {
    /// Between two writes of a worker's record.
    pub heartbeat_interval: Duration,
    /// Silence after which a worker counts as disconnected.
    pub disconnect_timeout: Duration,
    /// Silence after which the gateway deletes the record.
    pub retention: Duration,
}

/// Who may use the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Anybody who reaches the port.
    None,
    /// Holders of an API key.
    ApiKey,
}

/// How the gateway listens and whom it lets in.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Who may use it.
    pub auth_mode: AuthMode,
    /// Whether the gateway may listen beyond this machine without asking for keys.
    pub allow_unauthenticated: bool,
    /// Header of the API key.
    pub api_key_header: String,
    /// Handler threads; unset means eight per CPU.
    pub threads: Option<usize>,
    /// Streams (SSE) open at once.
    pub max_watchers: usize,
    /// Proxies whose forwarding headers are believed with `--behind-proxy`; none means those on this machine.
    pub trusted_proxies: Vec<Network>,
    /// Language of the dashboard.
    pub dashboard_lang: DashboardLang,
}

/// Language of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DashboardLang {
    /// That of the server's locale.
    Auto,
    /// Japanese, whatever the locale is.
    Ja,
    /// English, whatever the locale is.
    En,
}

/// API keys. Its `Debug` shows no secret.
#[derive(Clone, PartialEq)]
pub struct AuthConfig {
    /// Mixed into every hash; the same on all gateways.
    pub pepper: Option<String>,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").finish_non_exhaustive()
    }
}

/// The wheels of a worker; the registry's own settings are with the resources.
#[derive(Debug, Clone, PartialEq)]
pub struct WheelConfig {
    /// Whether a worker keeps its wheels current.
    pub sync_enabled: bool,
    /// Where a worker keeps them.
    pub sync_dir: PathBuf,
    /// Longest time between two looks at the registry; a change of it is followed at once.
    pub sync_interval: Duration,
    /// For one wheel to be put in place.
    pub install_timeout: Duration,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One line of plain text, for people at a terminal.
    Text,
}

/// Level and form of log lines.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `trace`, `debug`, `info`, `warning`, `error` or `off`, in any case.
    pub level: String,
    /// Form of a line.
    pub format: LogFormat,
    /// UTC, or the machine's time zone.
    pub utc: bool,
    /// Whether error lines carry `exc_traceback`.
    pub include_traceback: bool,
}

/// What [`Config::load`] found: settings that can be used in any case, and what to tell the operator.
#[derive(Debug)]
pub struct Loaded {
    /// Every setting; what did not parse has its default.
    pub config: Config,
    /// Values that did not parse.
    pub warnings: Vec<Warning>,
    /// Every known variable, its value (secrets masked) and where it came from.
    pub settings: Vec<Setting>,
}

impl Config {
    /// Reads every setting from `source`, once; nothing below `cli` asks the environment again.
    pub fn load(source: &Source) -> Loaded {
        let mut r = Reader::new(source);
        let ack_wait = r.seconds("PYOCO_CONSUMER_ACK_WAIT_SEC", 30.0);
        let config = Config {
            nats: nats(&mut r),
            resources: resources(&mut r, ack_wait),
            run: run(&mut r, ack_wait),
            registry: RegistryConfig {
                heartbeat_interval: r.seconds("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", 5.0),
                disconnect_timeout: r.seconds("PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC", 20.0),
                retention: r.seconds("PYOCO_WORKERS_RETENTION_SEC", 604_800.0),
            },
            http: HttpConfig {
                auth_mode: r.choice(
                    "PYOCO_HTTP_AUTH_MODE",
                    &[("none", AuthMode::None), ("api_key", AuthMode::ApiKey)],
                ),
                allow_unauthenticated: r.flag("PYOCO_ALLOW_UNAUTHENTICATED", false),
                api_key_header: r.header("PYOCO_HTTP_API_KEY_HEADER", "X-API-Key"),
                threads: r.optional_count("PYOCO_HTTP_THREADS", 1..=256),
                max_watchers: r.number("PYOCO_HTTP_MAX_WATCHERS", 256, 1..=10_000),
                trusted_proxies: r.parsed("PYOCO_TRUSTED_PROXIES", "", Vec::new(), networks),
                dashboard_lang: r.choice(
                    "PYOCO_DASHBOARD_LANG",
                    &[("auto", DashboardLang::Auto), ("ja", DashboardLang::Ja), ("en", DashboardLang::En)],
                ),
            },
            auth: AuthConfig { pepper: r.secret("PYOCO_AUTH_PEPPER") },
            wheels: wheels(&mut r),
            log: LogConfig {
                level: r.string("PYOCO_LOG_LEVEL", "INFO"),
                format: r.choice("PYOCO_LOG_FORMAT", &[("json", LogFormat::Json), ("text", LogFormat::Text)]),
                utc: r.flag("PYOCO_LOG_UTC", true),
                include_traceback: r.flag("PYOCO_LOG_INCLUDE_TRACEBACK", true),
            },
            python: python::python(&mut r),
            worker_concurrency: r.optional_count("PYOCO_WORKER_CONCURRENCY", 1..=1024),
        };
        let (warnings, settings) = r.finish();
        Loaded { config, warnings, settings }
    }
}

impl Default for Config {
    /// What an empty environment gives.
    fn default() -> Self {
        Config::load(&Source::default()).config
    }
}

fn nats(r: &mut Reader<'_>) -> NatsConfig {
    NatsConfig {
        url: r.url("PYOCO_NATS_URL", "nats://127.0.0.1:4222"),
        creds: r.path("PYOCO_NATS_CREDS"),
        user: r.optional("PYOCO_NATS_USER"),
        password: r.secret("PYOCO_NATS_PASSWORD"),
        token: r.secret("PYOCO_NATS_TOKEN"),
        nkey_seed_file: r.path("PYOCO_NATS_NKEY_SEED_FILE"),
        inbox_prefix: r.subject("PYOCO_NATS_INBOX_PREFIX", "_INBOX"),
        js_domain: r.parsed("PYOCO_JS_DOMAIN", "", None, js_domain),
        tls_ca: r.path("PYOCO_NATS_TLS_CA"),
        tls_cert: r.path("PYOCO_NATS_TLS_CERT"),
        tls_key: r.path("PYOCO_NATS_TLS_KEY"),
        request_timeout: r.seconds("PYOCO_NATS_REQUEST_TIMEOUT_SEC", 5.0),
        monitor_url: r.optional("PYOCO_NATS_MONITOR_URL"),
    }
}

fn resources(r: &mut Reader<'_>, ack_wait: Duration) -> ResourceConfig {
    let ns = Namespace::new(r.optional_name(NAMESPACE));
    ResourceConfig {
        work_subject_prefix: r.subject("PYOCO_WORK_SUBJECT_PREFIX", &ns.subject("work")),
        dlq_subject_prefix: r.subject("PYOCO_DLQ_SUBJECT_PREFIX", &ns.subject("dlq")),
        dlq_stream: r.name("PYOCO_DLQ_STREAM", &ns.stream("DLQ")),
        dlq_max_age: r.seconds("PYOCO_DLQ_MAX_AGE_SEC", 604_800.0),
        dlq_max_msgs: r.number("PYOCO_DLQ_MAX_MSGS", 100_000, 1..=i64::MAX),
        dlq_max_bytes: r.number("PYOCO_DLQ_MAX_BYTES", 536_870_912, 1..=i64::MAX),
        runs_bucket: r.name("PYOCO_RUNS_KV_BUCKET", &ns.name("runs")),
        workers_bucket: r.name("PYOCO_WORKERS_KV_BUCKET", &ns.name("workers")),
        workers_ttl: r.optional_seconds("PYOCO_WORKERS_KV_TTL_SEC"),
        auth_bucket: r.name("PYOCO_AUTH_KV_BUCKET", &ns.name("auth")),
        wheels_bucket: r.name("PYOCO_WHEEL_OBJECT_STORE_BUCKET", &ns.name("wheels")),
        wheels_max_bytes: r.number("PYOCO_WHEEL_MAX_BYTES", 536_870_912, 1..=i64::MAX),
        wheel_history_bucket: r.name("PYOCO_WHEEL_HISTORY_KV_BUCKET", &ns.name("wheel_history")),
        wheel_history_ttl: r.seconds("PYOCO_WHEEL_HISTORY_TTL_SEC", 7_776_000.0),
        ack_wait,
        max_deliver: r.number("PYOCO_CONSUMER_MAX_DELIVER", 20, 1..=1_000_000),
        max_ack_pending: r.number("PYOCO_CONSUMER_MAX_ACK_PENDING", 200, 1..=1_000_000),
        replicas: r.number("PYOCO_JS_REPLICAS", 1, 1..=5) as u32,
        namespace: ns,
    }
}

fn run(r: &mut Reader<'_>, ack_wait: Duration) -> RunConfig {
    let wanted = r.seconds("PYOCO_ACK_PROGRESS_INTERVAL_SEC", 10.0);
    // An in-progress ACK that comes after ack_wait comes too late (`docs/contract.md#delivery-of-jobs`).
    let ack_progress_interval = if wanted < ack_wait { wanted } else { ack_wait / 2 };
    let heartbeat_interval = r.seconds("PYOCO_RUN_HEARTBEAT_INTERVAL_SEC", 1.0);
    let stop_without_nats = r.parsed("PYOCO_LOST_NATS", "continue", None, contact::parse_lost_nats);
    // Between two heartbeats there is nothing for NATS to answer.
    let least_silence = heartbeat_interval.saturating_mul(2);
    RunConfig {
        default_tag: r.name("PYOCO_DEFAULT_TAG", "default"),
        heartbeat_interval,
        ack_progress_interval,
        stop_without_nats: stop_without_nats.map(|after| after.max(least_silence)),
        longest_stop_without_nats: contact::longest_stop(heartbeat_interval, ack_wait, ack_progress_interval),
        execution_lease: contact::execution_lease(heartbeat_interval, ack_wait, ack_progress_interval),
        cancel_grace_period: r.seconds_or_zero("PYOCO_CANCEL_GRACE_PERIOD_SEC", 30.0),
        term_grace: r.seconds_or_zero("PYOCO_RUN_TERM_GRACE_SEC", 2.0),
        timeout: r.optional_seconds("PYOCO_RUN_TIMEOUT_SEC"),
        max_snapshot_bytes: r.number("PYOCO_MAX_RUN_SNAPSHOT_BYTES", 262_144, 1024..=usize::MAX),
        max_workflow_bytes: r.number("PYOCO_WORKFLOW_YAML_MAX_BYTES", 262_144, 1..=i64::MAX) as u64,
        dlq_execution_errors: r.flag("PYOCO_DLQ_PUBLISH_EXECUTION_ERROR", true),
    }
}

fn wheels(r: &mut Reader<'_>) -> WheelConfig {
    let sync_dir = r.string("PYOCO_WHEEL_SYNC_DIR", ".pyoco/wheels");
    WheelConfig {
        sync_enabled: r.flag("PYOCO_WHEEL_SYNC_ENABLED", false),
        sync_dir: PathBuf::from(sync_dir),
        sync_interval: r.seconds("PYOCO_WHEEL_SYNC_INTERVAL_SEC", 10.0),
        install_timeout: r.seconds("PYOCO_WHEEL_INSTALL_TIMEOUT_SEC", 180.0),
    }
}

fn js_domain(text: &str) -> Result<Option<String>, String> {
    // The token after `$JS` of a subject that is no domain's.
    match name::is_tag(text) && !["API", "ACK", "EVENT"].contains(&text) {
        true => Ok(Some(text.to_owned())),
        false => Err("must be a JetStream domain: [A-Za-z0-9_-]+, none of API, ACK, EVENT".to_owned()),
    }
}

/// Networks, separated by commas.
fn networks(text: &str) -> Result<Vec<Network>, String> {
    let parse = |entry: &str| entry.trim().parse::<Network>().map_err(|e| e.to_string());
    text.split(',').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_environment_gives_the_contracts_defaults() {
        let config = Config::default();
        assert_eq!(config.nats.url, "nats://127.0.0.1:4222");
        assert_eq!(config.resources.ack_wait, Duration::from_secs(30));
        assert_eq!(config.run.max_snapshot_bytes, 262_144);
        assert_eq!(config.http.api_key_header, "X-API-Key");
    }

    #[test]
    fn a_value_that_does_not_parse_is_named_and_the_default_is_used() {
        let source = Source::from_pairs([
            ("PYOCO_CANCEL_GRACE_PERIOD_SEC", "soon"),
            ("PYOCO_CONSUMER_MAX_DELIVER", "0"),
            ("PYOCO_LOG_FORMAT", "xml"),
            ("PYOCO_DEFAULT_TAG", "a.b"),
            ("PYOCO_RUNS_KV_BUCKET", ""),
        ]);
        let loaded = Config::load(&source);
        let names: Vec<_> = loaded.warnings.iter().map(|w| w.name).collect();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(
            names,
            [
                "PYOCO_CONSUMER_MAX_DELIVER",
                "PYOCO_DEFAULT_TAG",
                "PYOCO_CANCEL_GRACE_PERIOD_SEC",
                "PYOCO_LOG_FORMAT"
            ]
        );
    }

    #[test]
    fn proxies_are_addresses_and_networks() {
        let loaded = |text| Config::load(&Source::from_pairs([("PYOCO_TRUSTED_PROXIES", text)]));
        let good = loaded("10.0.0.7, fd00::/8");
        assert_eq!((good.config.http.trusted_proxies.len(), good.warnings.len()), (2, 0));
        let bad = loaded("10.0.0.7,proxy.lan");
        assert_eq!((bad.config.http.trusted_proxies.len(), bad.warnings.len()), (0, 1));
        assert!(bad.warnings[0].problem.contains("`proxy.lan`"), "{:?}", bad.warnings);
    }

    #[test]
    fn in_progress_acks_stay_under_ack_wait() {
        let source = Source::from_pairs([("PYOCO_CONSUMER_ACK_WAIT_SEC", "4")]);
        assert_eq!(Config::load(&source).config.run.ack_progress_interval, Duration::from_secs(2));
    }

    #[test]
    fn secrets_are_masked() {
        let source = Source::from_pairs([
            ("PYOCO_NATS_URL", "nats://bob:hunter2@127.0.0.1:4222,nats://tok3n@h:1"),
            ("PYOCO_NATS_PASSWORD", "hunter2"),
            ("PYOCO_NATS_TOKEN", "tok3n"),
            ("PYOCO_AUTH_PEPPER", "hunter2"),
        ]);
        let loaded = Config::load(&source);
        let shown = format!("{:?} {:?}", loaded.settings, loaded.config);
        assert!(!shown.contains("hunter2") && !shown.contains("tok3n"), "{shown}");
        assert!(shown.contains("127.0.0.1:4222"), "{shown}");
    }
}
