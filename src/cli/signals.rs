//! SIGTERM and Ctrl-C: the first one asks to stop, the second one leaves at once. SIGHUP, by the program.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::failure::Failure;
use super::program;
use crate::model::error::Code;
use crate::systemd;
use crate::thread::{self, StopSignal};

/// What SIGHUP means to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hangup {
    /// It asks to stop, as SIGTERM does. It never leaves at once: a terminal that closes sends several of
    /// them, and systemd may send one right after SIGTERM.
    Stops,
    /// It is for a reload, and there is nothing to reload.
    Reloads,
}

/// A signal that closes on the first SIGTERM or SIGINT, and perhaps on SIGHUP.
///
/// The thread that waits for signals is never joined: it waits until the process ends.
pub(super) fn stop_signal(hangup: Hangup) -> Result<StopSignal, Failure> {
    let title = "cannot watch for signals";
    // `nohup` has it ignored, and that is to stay so.
    let heeded = if is_ignored(SIGHUP) { &[SIGINT, SIGTERM][..] } else { &[SIGINT, SIGTERM, SIGHUP] };
    let mut signals = Signals::new(heeded).map_err(|e| program::failed(Code::CannotStart, title, e))?;
    let (source, stop) = thread::stop_channel();
    let mut source = Some(source);
    let body = move || {
        for signal in signals.forever() {
            if signal == SIGHUP && hangup == Hangup::Reloads {
                log::info!(signal = signal; "nothing to reload; going on");
                continue;
            }
            match source.take() {
                Some(first) => {
                    systemd::stopping();
                    log::info!(signal = signal; "stopping; a second signal leaves at once");
                    drop(first);
                }
                None if signal == SIGHUP => log::info!(signal = signal; "stopping already"),
                // As a shell counts it: 128 and the number of the signal.
                None => {
                    crate::logging::flush();
                    std::process::exit(128 + signal);
                }
            }
        }
    };
    let no_thread = |e: std::io::Error| {
        let reason =
            format!("{e}; raise the limit of threads (`ulimit -u`, `TasksMax=`, a container's pids)");
        program::failed(Code::CannotStart, title, reason)
    };
    thread::spawn("signals", body).map_err(no_thread)?.abandon();
    Ok(stop)
}

/// Whether this process was started with a signal ignored; the kernel tells it as a mask.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}
