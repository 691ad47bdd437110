//! What we keep in NATS, and how it is created when it is missing (`docs/spec.md#in-nats`).

use serde_json::{Value, json};

use crate::config::ResourceConfig;
use crate::model::name;

/// Key of a work stream's metadata: the bucket of the snapshots of its runs. Programs with another bucket
/// would execute jobs and write what became of them where nobody looks.
pub(crate) const RUNS_BUCKET_KEY: &str = "pyoco_runs_bucket";
/// Keys of the metadata of a bucket of runs: the stream of their jobs, and the subjects of these. Programs
/// with other jobs would take the runs for ones whose jobs are lost.
pub(crate) const WORK_STREAM_KEY: &str = "pyoco_work_stream";
pub(crate) const WORK_SUBJECTS_KEY: &str = "pyoco_work_subjects";
/// How long an entry is kept: a year, in which somebody may want to look back.
const AUDIT_MAX_AGE_SEC: u64 = 31_536_000;
/// Most bytes of entries, some half a million of them; then the oldest go first.
const AUDIT_MAX_BYTES: i64 = 268_435_456;

/// A second submit under the same message id within this time is recognised as the first.
const DUPLICATE_WINDOW_SEC: u64 = 600;
const KV_DUPLICATE_WINDOW_SEC: u64 = 120;
/// An advisory that no worker has read for a week is of no use any more.
const ADVISORY_MAX_AGE_SEC: u64 = 604_800;
/// How long a worker may take over one advisory; handling it twice does no harm.
const ADVISORY_ACK_WAIT_SEC: u64 = 10;

const NANOS: u64 = 1_000_000_000;

/// A KV bucket or an object store: its name and the stream behind it.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    pub name: String,
    pub stream: Value,
}

pub(crate) fn work_stream_name(config: &ResourceConfig) -> String {
    config.namespace.stream("WORK")
}

/// Advisories about jobs whose deliveries are exhausted; a work queue of its own.
pub(crate) fn advisory_stream_name(config: &ResourceConfig) -> String {
    config.namespace.stream("ADVISORY")
}

pub(crate) fn advisory_consumer_name(config: &ResourceConfig) -> String {
    config.namespace.name("exhausted")
}

/// Who did what; entries only come and grow old.
pub(crate) fn audit_stream_name(config: &ResourceConfig) -> String {
    config.namespace.stream("AUDIT")
}

pub(crate) fn audit_subject(config: &ResourceConfig) -> String {
    config.namespace.subject("audit")
}

/// The settings of every stream that the programs use, those behind buckets too.
pub(crate) fn all_streams(config: &ResourceConfig) -> Vec<Value> {
    vec![
        work_stream(config),
        advisory_stream(config),
        audit_stream(config),
        dlq_stream(config),
        runs_bucket(config).stream,
        workers_bucket(config).stream,
        auth_bucket(config).stream,
        wheels_store(config).stream,
        wheel_history_bucket(config).stream,
    ]
}

pub(crate) fn runs_bucket(config: &ResourceConfig) -> Bucket {
    let mut bucket = bucket(config, &config.runs_bucket, 0);
    bucket.stream["metadata"] = json!({
        WORK_STREAM_KEY: work_stream_name(config),
        WORK_SUBJECTS_KEY: config.work_subject_prefix,
    });
    bucket
}

pub(crate) fn workers_bucket(config: &ResourceConfig) -> Bucket {
    let ttl = config.workers_ttl.map_or(0, |ttl| ttl.as_nanos() as u64);
    bucket(config, &config.workers_bucket, ttl)
}

pub(crate) fn auth_bucket(config: &ResourceConfig) -> Bucket {
    bucket(config, &config.auth_bucket, 0)
}

pub(crate) fn wheel_history_bucket(config: &ResourceConfig) -> Bucket {
    bucket(config, &config.wheel_history_bucket, config.wheel_history_ttl.as_nanos() as u64)
}

pub(crate) fn wheels_store(config: &ResourceConfig) -> Bucket {
    let name = &config.wheels_bucket;
    let stream = json!({
        "name": object_stream(name),
        "subjects": [format!("$O.{name}.C.>"), format!("$O.{name}.M.>")],
        "retention": "limits",
        // A full store refuses an upload instead of dropping the oldest chunks.
        "discard": "new",
        "max_bytes": config.wheels_max_bytes,
        "storage": "file",
        "num_replicas": config.replicas,
        "allow_rollup_hdrs": true,
        "allow_direct": true,
    });
    Bucket { name: name.clone(), stream }
}

pub(crate) fn object_stream(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

pub(crate) fn work_stream(config: &ResourceConfig) -> Value {
    json!({
        "name": work_stream_name(config),
        "subjects": [format!("{}.>", config.work_subject_prefix)],
        "retention": "workqueue",
        // A full queue refuses the submit instead of dropping the oldest job.
        "discard": "new",
        "storage": "file",
        "num_replicas": config.replicas,
        "duplicate_window": DUPLICATE_WINDOW_SEC * NANOS,
        "allow_direct": true,
        "metadata": {RUNS_BUCKET_KEY: config.runs_bucket},
    })
}

pub(crate) fn dlq_stream(config: &ResourceConfig) -> Value {
    json!({
        "name": config.dlq_stream,
        "subjects": [format!("{}.>", config.dlq_subject_prefix)],
        "retention": "limits",
        "discard": "old",
        "max_age": config.dlq_max_age.as_nanos() as u64,
        "max_msgs": config.dlq_max_msgs,
        "max_bytes": config.dlq_max_bytes,
        "storage": "file",
        "num_replicas": config.replicas,
        "allow_direct": true,
    })
}

pub(crate) fn audit_stream(config: &ResourceConfig) -> Value {
    json!({
        "name": audit_stream_name(config),
        "subjects": [format!("{}.>", audit_subject(config))],
        "retention": "limits",
        "discard": "old",
        "max_age": AUDIT_MAX_AGE_SEC * NANOS,
        "max_bytes": AUDIT_MAX_BYTES,
        "storage": "file",
        "num_replicas": config.replicas,
        // Nobody rewrites what was done.
        "deny_delete": true,
        "deny_purge": true,
        "allow_direct": true,
    })
}

pub(crate) fn advisory_stream(config: &ResourceConfig) -> Value {
    json!({
        "name": advisory_stream_name(config),
        "subjects": [format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{}.>", work_stream_name(config))],
        "retention": "workqueue",
        "discard": "old",
        "max_age": ADVISORY_MAX_AGE_SEC * NANOS,
        "max_msgs": 100_000,
        "storage": "file",
        "num_replicas": config.replicas,
    })
}

pub(crate) fn advisory_consumer(config: &ResourceConfig) -> Value {
    json!({
        "durable_name": advisory_consumer_name(config),
        "ack_policy": "explicit",
        "ack_wait": ADVISORY_ACK_WAIT_SEC * NANOS,
        "num_replicas": config.replicas,
    })
}

pub(crate) fn tag_consumer(config: &ResourceConfig, tag: &str) -> Value {
    json!({
        "durable_name": consumer_name(config, tag),
        "filter_subject": format!("{}.{tag}", config.work_subject_prefix),
        "ack_policy": "explicit",
        "ack_wait": config.ack_wait.as_nanos() as u64,
        "max_deliver": config.max_deliver,
        "max_ack_pending": config.max_ack_pending,
        "num_replicas": config.replicas,
    })
}

pub(crate) fn consumer_name(config: &ResourceConfig, tag: &str) -> String {
    format!("{}_{tag}", config.namespace.name("workers"))
}

/// The tag that a consumer of the work stream is for, by its name.
pub(crate) fn tag_of<'a>(config: &ResourceConfig, consumer: &'a str) -> Option<&'a str> {
    let tag = consumer.strip_prefix(&config.namespace.name("workers"))?.strip_prefix('_')?;
    name::is_tag(tag).then_some(tag)
}

fn bucket(config: &ResourceConfig, name: &str, ttl_nanos: u64) -> Bucket {
    let window = match ttl_nanos {
        0 => KV_DUPLICATE_WINDOW_SEC * NANOS,
        ttl => ttl.min(KV_DUPLICATE_WINDOW_SEC * NANOS),
    };
    let stream = json!({
        "name": format!("KV_{name}"),
        "subjects": [format!("$KV.{name}.>")],
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_age": ttl_nanos,
        "storage": "file",
        "num_replicas": config.replicas,
        "duplicate_window": window,
        "allow_rollup_hdrs": true,
        "deny_delete": true,
        "allow_direct": true,
    });
    Bucket { name: name.to_owned(), stream }
}
