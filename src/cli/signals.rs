//! SIGTERM and Ctrl-C: the first one asks to stop, the second one leaves at once.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::failure::Failure;
use super::program;
use crate::model::error::Code;
use crate::thread::{self, StopSignal};

/// A signal that closes on the first SIGTERM or SIGINT.
///
/// The thread that waits for signals is never joined: it waits until the process ends.
pub(super) fn stop_signal() -> Result<StopSignal, Failure> {
    let title = "cannot watch for signals";
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|e| program::failed(Code::CannotStart, title, e))?;
    let (source, stop) = thread::stop_channel();
    let mut source = Some(source);
    let body = move || {
        for signal in signals.forever() {
            match source.take() {
                Some(first) => {
                    log::info!(signal = signal; "stopping; a second signal leaves at once");
                    drop(first);
                }
                // As a shell counts it: 128 and the number of the signal.
                None => {
                    crate::logging::flush();
                    std::process::exit(128 + signal);
                }
            }
        }
    };
    thread::spawn("signals", body).map_err(|e| program::failed(Code::CannotStart, title, e))?.abandon();
    Ok(stop)
}
