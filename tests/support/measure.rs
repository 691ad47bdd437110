//! What processes hold: threads, memory, descriptors, other processes. [`own`] is the id of the test's own
//! process; a test that measures it needs it to itself: see [`alone`] and [`in_child`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{PATIENCE, eventually};

/// The process that the test runs in.
pub fn own() -> u32 {
    std::process::id()
}

/// How many threads a process has.
pub fn threads(pid: u32) -> usize {
    entries(pid, "task").count()
}

/// The names of its threads, sorted.
pub fn thread_names(pid: u32) -> Vec<String> {
    let read = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm")).ok();
    let mut names: Vec<String> =
        entries(pid, "task").filter_map(read).map(|name| name.trim().to_owned()).collect();
    names.sort();
    names
}

/// How many descriptors it has open.
pub fn descriptors(pid: u32) -> usize {
    entries(pid, "fd").count()
}

/// How many of each kind: `socket`, `pipe`, `anon_inode`, or the path of a file.
pub fn descriptors_by_kind(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for target in entries(pid, "fd").filter_map(|entry| fs::read_link(entry.path()).ok()) {
        let kind = target.to_string_lossy().split(':').next().unwrap().to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Its resident memory in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmRSS:")
}

/// The most that it ever was.
pub fn peak_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmHWM:")
}

fn memory_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Whether the process exists and is not only waiting to be reaped.
pub fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Waits until it is gone.
pub fn wait_gone(pid: u32) {
    eventually(PATIENCE, "the process ends", || (!is_running(pid)).then_some(()));
}

/// The process that has started it.
pub fn parent_of(pid: u32) -> u32 {
    stat(pid).expect("the process is there").1
}

/// All processes below it, with their states.
pub fn below(pid: u32) -> Vec<(u32, char)> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let child = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some((child, (state, parent))) = child.and_then(|child| Some((child, stat(child)?))) else {
            continue;
        };
        if parent == pid {
            processes.push((child, state));
            processes.extend(below(child));
        }
    }
    processes
}

/// Ends a process that does not expect it.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends a signal to any process.
pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Reads the id of a process that a flow writes to a file.
pub fn pid_in(path: &Path) -> u32 {
    eventually(PATIENCE, "the flow writes its pid", || {
        fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok()
    })
}

/// The state and the parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn entries(pid: u32, folder: &str) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(format!("/proc/{pid}/{folder}")).expect("the process is there").flatten()
}

/// Tests of one binary that measure their own process run one at a time while each holds this.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Set in the child of a test that measures or limits its process, and so needs one of its own.
const CHILD: &str = "PYOCO_TEST_CHILD";

/// Whether this is the child that runs the test `name` (`module::function`) alone; else runs it and checks
/// its success.
pub fn in_child(name: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let ended = command.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    // A name that is wrong is no failure to the child.
    assert!(ended.status.success() && said[0].contains(" 1 passed;"), "{}", said.concat());
    false
}
