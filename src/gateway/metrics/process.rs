//! What this process and the kernel say of it.

use std::fs;

use super::text::{Kind, Text};

/// Dropped log lines; memory, descriptors and threads where there is a `/proc`.
pub(crate) fn write(text: &mut Text) {
    let help = "Log lines that were dropped because stderr was not read.";
    let dropped = crate::logging::dropped_lines() as f64;
    text.single("pyoco_log_lines_dropped_total", Kind::Counter, help, dropped);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<f64> {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse().ok()
    };
    if let Some(kib) = field("VmRSS:") {
        let help = "Resident memory of the gateway.";
        text.single("process_resident_memory_bytes", Kind::Gauge, help, kib * 1024.0);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let open = descriptors.count().saturating_sub(1);
        text.single("process_open_fds", Kind::Gauge, "Open file descriptors.", open as f64);
    }
    if let Some(threads) = field("Threads:") {
        text.single("process_threads", Kind::Gauge, "Threads of the gateway.", threads);
    }
}
