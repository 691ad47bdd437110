//! How many runs at once the system gives threads for, found out before the first job is taken.

use rustix::process::{Resource, getrlimit};

use super::Error;
use crate::thread;

/// What a run needs beside the thread of its slot: one keeps the job alive, one executes the flow, one its
/// tasks.
const THREADS_OF_A_RUN: usize = 3;
/// What a worker needs beside its slots: its record, its checks, its sweeper, its wheels.
const OTHER_THREADS: usize = 4;
/// What the connections to NATS need, as long as they are not there.
const NATS_THREADS: usize = 10;
/// Address space of a thread: its stack and what comes with it.
const BYTES_OF_A_THREAD: u64 = 2 * 1024 * 1024 + 128 * 1024;
/// Address space that is left to everything else, where it is limited.
const SPARE_BYTES: u64 = 96 * 1024 * 1024;

/// How many of the wanted slots there are threads for, with what their runs need: a slot that could not
/// execute its runs would be worse than none. The threads are started to find out, and end at once.
pub(super) fn affordable(wanted: usize, is_connected: bool) -> Result<usize, Error> {
    let threads_of_slot = 1 + THREADS_OF_A_RUN;
    let others = OTHER_THREADS + if is_connected { 0 } else { NATS_THREADS };
    let needed = wanted.saturating_mul(threads_of_slot).saturating_add(others);
    // Not tried out: what comes next would find no memory, and end the process.
    let needed = needed.min(threads_of_address_space());
    let (release, held) = thread::stop_channel();
    let mut threads = Vec::new();
    while threads.len() < needed {
        let held = held.clone();
        let body = move || {
            // It never delivers anything; its end is the news.
            let _ = held.recv();
        };
        match thread::spawn("headroom", body) {
            Ok(thread) => threads.push(thread),
            Err(_) => break,
        }
    }
    let had = threads.len();
    drop(release);
    drop(threads);
    match had.saturating_sub(others) / threads_of_slot {
        0 => Err(Error::TooFewThreads { threads: had }),
        slots => Ok(slots.min(wanted)),
    }
}

/// How many threads fit into the address space that the process may still take (`ulimit -v`).
fn threads_of_address_space() -> usize {
    let Some(limit) = getrlimit(Resource::As).current else { return usize::MAX };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let taken_kib = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let taken = taken_kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024);
    let left = limit.saturating_sub(taken).saturating_sub(SPARE_BYTES);
    usize::try_from(left / BYTES_OF_A_THREAD).unwrap_or(usize::MAX)
}
