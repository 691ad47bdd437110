//! Why a worker ends with an error.

/// An error of this floor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has started under the same worker id; its record is theirs now.
    #[error("worker id `{worker_id}` was taken over by {by}; start one of the two with another --worker-id")]
    TakenOver {
        /// The id that both processes were started with.
        worker_id: String,
        /// Host and pid of the other process.
        by: String,
    },
    /// A worker that was to execute one job could not even ask for it.
    #[error("the work queue could not be reached; check that NATS runs, or pass a longer --poll-timeout")]
    NoQueue,
    /// A stream or consumer that it needs belongs to another installation, or refuses every pull.
    #[error("the worker can never take a job: {0}")]
    Refused(#[source] crate::bus::Error),
    /// A worker that was to execute one job could not give it its wheels.
    #[error("the worker's wheels could not be made ready, so no job was taken: {reason}")]
    NoWheels {
        /// As its record has it.
        reason: String,
    },
    /// A worker that was to execute one job could not, for a fault of its own.
    #[error("this worker cannot execute runs, so its job was given back: {reason}")]
    Unavailable {
        /// As its record has it.
        reason: String,
    },
    /// There are not enough threads for a single run at a time.
    #[error(
        "the system gives this worker only {threads} threads, too few for one run at a time; raise its limit \
         (`ulimit -u`, `ulimit -v`, TasksMax= of systemd, the limit of pids of the container)"
    )]
    TooFewThreads {
        /// How many could be had.
        threads: usize,
    },
    /// The operating system gives no more threads.
    #[error("cannot start a thread of the worker: {0}")]
    Thread(#[from] std::io::Error),
}
