//! Bounds that several floors share or that a user can meet, each with its reason; what one file alone
//! needs stands there.

use std::time::Duration;

/// Longest tag, worker id or key: far below what a NATS subject may hold.
pub const MAX_NAME_BYTES: usize = 256;
/// Longest `flow_name`; it is data, never a subject.
pub const MAX_FLOW_NAME_BYTES: usize = 512;
/// Most free labels of a run.
pub const MAX_RUN_TAGS: usize = 64;
/// Longest error text kept in a snapshot; a longer one is cut at the end.
pub const MAX_ERROR_BYTES: usize = 8 * 1024;
pub const MAX_CANCEL_REASON_BYTES: usize = 1024;
/// How much of a job message that cannot be read goes into its DLQ entry (`docs/spec.md#dlq-entry`).
pub const DLQ_PAYLOAD_BYTES: usize = 4096;

/// Body limit of JSON requests; NATS refuses messages over 1 MiB by default.
pub const MAX_JSON_BODY_BYTES: u64 = 1024 * 1024 - 16 * 1024;
/// What multipart framing and the other fields may add to an uploaded file.
pub const MULTIPART_OVERHEAD_BYTES: u64 = 64 * 1024;
pub const MAX_MULTIPART_PARTS: usize = 32;
/// Head of one part of a streamed multipart body; two short lines in practice.
pub const MAX_PART_HEAD_BYTES: usize = 8 * 1024;

/// Least `max_payload` of NATS with which everything works: a snapshot of the largest default size.
pub const ADVISED_MAX_PAYLOAD: usize = 256 * 1024;
/// Below it not even a small run fits into a message.
pub const LEAST_MAX_PAYLOAD: usize = 4 * 1024;

/// What does not work with this `max_payload` of NATS; `None` when all does. 0 is one that nobody knows.
pub fn low_max_payload(bytes: usize) -> Option<String> {
    match bytes {
        0 | ADVISED_MAX_PAYLOAD.. => None,
        ..LEAST_MAX_PAYLOAD => Some(format!("no run fits into {bytes} bytes")),
        _ => Some(format!(
            "a submit over {} bytes is refused with 413, and runs lose task records",
            bytes - snapshot_room(bytes)
        )),
    }
}

/// What a worker may add to a snapshot in a server with this `max_payload`: tasks, the error, its own name. A
/// run whose end could not be stored would never end.
pub const fn snapshot_room(max_payload: usize) -> usize {
    const MOST: usize = 128 * 1024;
    let quarter = max_payload / 4;
    if quarter < MOST { quarter } else { MOST }
}

/// Page size of `GET /runs`: bounds and default (`docs/spec.md#lists-and-cursors`).
pub const LIST_LIMIT: (i64, i64, i64) = (1, 200, 50);

/// Connections that the gateway serves at once; further ones are answered 503.
pub const MAX_CONNECTIONS: usize = 1024;
/// Request head: bytes and header count.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
pub const MAX_HEADERS: usize = 64;
/// From the first byte of a request to the end of its head.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// For the body of one request, however slowly it drips.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// A keep-alive connection without a request: longer than the 60 s for which proxies keep theirs, so that
/// the proxy closes first and no request meets a closed connection.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(75);
/// For a handler to answer; then the answer is 504.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// For one write to a client that does not read.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// For a request whose body is read to get a permit; then the answer is 503.
pub const PERMIT_PATIENCE: Duration = Duration::from_secs(5);
/// How much a connection may buffer without asking: below it a hostile crowd costs
/// [`MAX_CONNECTIONS`] times this much, above it [`MAX_BUFFERED_BYTES`] is drawn on.
pub const FREE_BUFFER_BYTES: usize = 16 * 1024;
/// Request bodies and answers that all connections together may buffer.
pub const MAX_BUFFERED_BYTES: usize = 64 * 1024 * 1024;
/// Uploads at once: each holds a thread, a buffer, and whatever its handler needs for each piece.
pub const MAX_UPLOADS: usize = 8;
/// What is read at once of an upload.
pub const UPLOAD_PIECE_BYTES: usize = 64 * 1024;
/// Bytes per second below which a streamed upload is given up, once [`BODY_DEADLINE`] is used up: a
/// slow home line sends more than that, and each upload holds one of few places.
pub const MIN_UPLOAD_RATE: u64 = 64 * 1024;
/// Answers up to this size share the memory of [`MAX_BUFFERED_BYTES`] while they are written; larger ones
/// take a place of streams.
pub const ABSORB_BYTES: usize = 64 * 1024;
/// Requests that are handled at once. Handlers mostly wait for NATS.
pub const HTTP_THREADS: usize = 16;
/// Streaming answers (watchers, downloads) at once; each keeps its connection's thread and descriptor.
pub const MAX_STREAMS: usize = 256;
/// Silence after which a stream of events gives a sign of life: a little less than the 5 s after
/// which the Python client gives a connection up.
pub const SSE_HEARTBEAT: Duration = Duration::from_millis(4_500);
/// When a client whose stream has ended should connect again.
pub const SSE_RETRY: Duration = Duration::from_secs(2);
/// How long one watch of a run may be asked to last, in seconds: bounds and default
/// (`docs/spec.md#get-runsidwatch`).
pub const WATCH_TIMEOUT_SEC: (i64, i64, i64) = (1, 600, 60);
/// Runs and workers that may wait for one reader of `/events`; beyond it the reader gets a `reset`
/// and loads its lists again.
pub const MAX_FEED_PENDING: usize = 1_000;
/// Least time between two batches of one feed: a burst of changes becomes few events.
pub const FEED_PAUSE: Duration = Duration::from_millis(50);
/// Page size of `GET /workers`: bounds and default (`docs/spec.md#get-workers`).
pub const WORKERS_LIMIT: (i64, i64, i64) = (1, 500, 100);
/// Values that one label of a metric may have; the rest is added up under `(other)`.
pub const MAX_METRIC_LABELS: usize = 100;
/// Longest `X-Request-ID` that is taken over from a client.
pub const MAX_REQUEST_ID_BYTES: usize = 128;
/// Longest API key that is looked at (the longest has 327 bytes: `docs/contract.md#api-keys`).
pub const MAX_API_KEY_BYTES: usize = 400;
/// Longest name of a tenant.
pub const MAX_TENANT_BYTES: usize = 64;
/// Longest note of an API key.
pub const MAX_KEY_NOTE_BYTES: usize = 256;

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

/// From SIGTERM to SIGKILL for the local nats-server; it flushes its store meanwhile.
pub const NATS_STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at a child for which there is no event to wait on.
pub const CHILD_POLL: Duration = Duration::from_millis(20);
/// Longest line of a child's output that is forwarded; the rest of it is dropped.
pub const MAX_CHILD_LINE_BYTES: usize = 4096;
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

/// Between two looks at a run that the client waits for: first and longest pause.
pub const CLIENT_WAIT_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long the gateway may be away while the client waits for a run.
pub const CLIENT_WAIT_PATIENCE: Duration = Duration::from_secs(30);

/// What is kept of each of the two output streams of one task.
pub const TASK_LOG_BYTES: usize = 4 * 1024;

/// What is kept of a `User-Agent` in an entry of the audit.
pub const MAX_USER_AGENT_BYTES: usize = 256;

/// Longest file name of a wheel: what a file system takes, less what a folder's lock file adds.
pub const MAX_WHEEL_NAME_BYTES: usize = 240;
/// Most tags of a wheel.
pub const MAX_WHEEL_TAGS: usize = 64;
/// Wheels that a worker's record and a run's snapshot list at most (`docs/spec.md#wheel_sync`).
pub const MAX_LISTED_WHEELS: usize = 50;

/// What is kept in such an event of each header that says where a request came from: all that a true one has,
/// and no way to fill the memory of every gateway.
pub const MAX_SOURCE_BYTES: usize = 256;
/// Page size of `GET /wheels/history`: bounds and default (`docs/spec.md#get-wheelshistory`).
pub const WHEEL_HISTORY_LIMIT: (i64, i64, i64) = (1, 500, 100);
/// Longest text field of a form that comes beside a file.
pub const MAX_FORM_FIELD_BYTES: usize = 16 * 1024;
/// Files and folders of one unpacked wheel; the largest packages have a tenth of it.
pub const MAX_WHEEL_ENTRIES: usize = 100_000;
/// What the files of one wheel may take when they are unpacked, however large it is.
pub const MAX_WHEEL_UNPACKED_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// The same in multiples of the wheel's own size; code packs to a fifth, a zip bomb to a thousandth.
pub const MAX_WHEEL_GROWTH: u64 = 100;
/// What any wheel may take, so that a small one with a sparse file is not taken for a bomb.
pub const FREE_WHEEL_UNPACKED_BYTES: u64 = 64 * 1024 * 1024;
/// Longest path within a wheel; with the folder that it is unpacked to, it stays far below what a
/// system call takes.
pub const MAX_WHEEL_PATH_BYTES: usize = 512;
/// Largest METADATA or WHEEL file that is read; a description with pictures in it has half of it.
pub const MAX_WHEEL_TEXT_BYTES: u64 = 4 * 1024 * 1024;
/// Why a wheel is not taken, as far as record and log show it: it may quote the wheel, which says what it
/// likes, and [`MAX_LISTED_WHEELS`] of them have to fit into one message.
pub const MAX_WHEEL_REASON_CHARS: usize = 500;
/// How long another worker may be at removing a folder of wheels that this one is about to use.
pub const WHEEL_LOCK_DEADLINE: Duration = Duration::from_secs(30);

/// Heartbeats of a run that a live worker may miss before its job is given back in its place.
pub const MISSED_HEARTBEATS: u32 = 5;
/// However short the heartbeat, a worker may be busy for this long.
pub const LEAST_RUN_SILENCE: Duration = Duration::from_secs(5);
