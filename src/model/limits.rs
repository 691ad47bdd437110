//! Every bound of the program, in one place and with its reason.

use std::time::Duration;

/// Longest tag, worker id or key: far below what a NATS subject may hold.
pub const MAX_NAME_BYTES: usize = 256;
/// Longest `flow_name`; it is data, never a subject.
pub const MAX_FLOW_NAME_BYTES: usize = 512;
/// Most free labels of a run.
pub const MAX_RUN_TAGS: usize = 64;
/// Longest error text kept in a snapshot; a longer one is cut at the end.
pub const MAX_ERROR_BYTES: usize = 8 * 1024;
/// Longest cancel reason kept.
pub const MAX_CANCEL_REASON_BYTES: usize = 1024;
/// How much of a job message that cannot be read goes into its DLQ entry (CONTRACT §2).
pub const DLQ_PAYLOAD_BYTES: usize = 4096;

/// Body limit of JSON requests; NATS refuses messages over 1 MiB by default.
pub const MAX_JSON_BODY_BYTES: u64 = 1024 * 1024 - 16 * 1024;
/// What multipart framing and the other fields may add to an uploaded file.
pub const MULTIPART_OVERHEAD_BYTES: u64 = 64 * 1024;
/// Most parts of one multipart body.
pub const MAX_MULTIPART_PARTS: usize = 32;

/// Page size of `GET /runs`: bounds and default (CONTRACT §3).
pub const LIST_LIMIT: (i64, i64, i64) = (1, 200, 50);

/// Connections that the edge serves at once; further ones are answered 503.
pub const MAX_CONNECTIONS: usize = 1024;
/// Request head: bytes and header count.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most headers of one request.
pub const MAX_HEADERS: usize = 64;
/// From the first byte of a request to the end of its head.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// For the body of one request, however slowly it drips.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// A keep-alive connection without a request.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// For a handler's answer to begin, after which the edge answers 504.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// For one write to a client that does not read.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Snapshots that the gateway keeps in memory for `GET /runs/{id}`, in bytes of JSON.
pub const SNAPSHOT_CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Events of one run that may wait between its executor and its slot; beyond that the executor waits.
pub const MAX_PENDING_EVENTS: usize = 256;
/// Task records of one run that are kept at most; the rest shows in `tasks` alone.
pub const MAX_TASK_RECORDS: usize = 10_000;
/// Tasks of one native flow that run at the same time.
pub const MAX_PARALLEL_TASKS: usize = 16;
/// Tasks (graph nodes) of one native flow.
pub const MAX_GRAPH_NODES: usize = 2_000;
/// Nesting of a JSON or YAML document that we take apart by recursion.
pub const MAX_DOCUMENT_DEPTH: usize = 100;
/// Most values that the anchors and aliases of one YAML document may copy.
pub const MAX_YAML_NODES: usize = 100_000;
/// Least time between two snapshot writes for task transitions (CONTRACT §2).
pub const SNAPSHOT_COALESCE: Duration = Duration::from_millis(250);
/// Most text that the anchors and aliases of one YAML document may copy: far more than a flow needs, far less
/// than would be felt.
pub const MAX_YAML_ALIAS_BYTES: usize = 4 * 1024 * 1024;
/// Longest graph text that the native engine reads; a node takes a few dozen bytes.
pub const MAX_GRAPH_BYTES: usize = 256 * 1024;
/// Parentheses inside parentheses of a graph text, which is read by recursion.
pub const MAX_GRAPH_DEPTH: usize = 32;
/// What the expressions of one native run may copy into task inputs: without it a chain of tasks that
/// repeat their input twice would double its size at every step.
pub const MAX_EXPRESSION_BYTES: usize = 64 * 1024 * 1024;
