"""Processes: names, orphans, and what is below a process."""

import contextlib
import ctypes
import os
import select
import signal
import time

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

# How long what is left of a run is killed; only a process stuck in the kernel outlives it.
CLEANUP_SEC = 5.0

own_pipe = []
libc = ctypes.CDLL(None, use_errno=True)
prctl = libc.prctl


class TimerSpec(ctypes.Structure):
    """`struct itimerspec`: the interval, which stays 0, and the time."""

    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_nsec", "at", "at_nsec")]


class BootTimer:
    """Becomes readable at a time of CLOCK_BOOTTIME, also right after a suspend in which that time passed."""

    def __init__(self):
        # Without it (no descriptors left) the timeouts of polls have to do, which a suspend prolongs.
        self.fd = libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)

    def set(self, at_nsec):
        if self.fd >= 0:
            spec = TimerSpec(0, 0, *divmod(at_nsec, 1_000_000_000))
            # 1: the time is absolute.
            libc.timerfd_settime(self.fd, 1, ctypes.byref(spec), None)


def set_process_name(name):
    prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def become_reaper():
    """Makes orphans below this process its children, also those that have called setsid."""
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with(parent):
    """Has the kernel kill this process when `parent`, which has one thread, ends; whether it lives."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def close_all_but(kept):
    """Closes what this process has inherited and does not use."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in kept:
                with contextlib.suppress(OSError):
                    os.close(int(name))


def unblock_signals():
    """Undoes what a resolver may have done to this thread, and every process of it would inherit."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def wakeup_pipe():
    """A pipe that becomes readable when a child ends or this process goes on, for a poll to wait on."""
    close_wakeup_pipe()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    for number in (signal.SIGCHLD, signal.SIGCONT):
        signal.signal(number, lambda number, frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    own_pipe.extend((reader, writer))
    return reader


def close_wakeup_pipe():
    """Forgets that of the process which has forked this one."""
    signal.set_wakeup_fd(-1)
    while own_pipe:
        os.close(own_pipe.pop())


def drain(fd):
    try:
        while os.read(fd, 4096):
            pass
    except OSError:
        pass


def ended_children():
    """Takes the children that have ended: pairs of a process id and its wait status."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def has_children():
    """Whether this process has children, ended ones too."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def ask_to_end(asked):
    """Sends SIGTERM to all below this process, once to each; `asked` has those that got it."""
    for pid in descendants_of(os.getpid()) - asked:
        asked.add(pid)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def end_all_below(woken):
    """Kills what is left and waits for it; the number of processes that could not be ended."""
    poller = select.poll()
    poller.register(woken, select.POLLIN)
    deadline = time.monotonic() + CLEANUP_SEC
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid:
            continue
        left = kill_all_below()
        if time.monotonic() > deadline:
            return left
        # A new process may have come up between the look and the kill, so look again soon.
        poller.poll(20)
        drain(woken)


def kill_all_below(spares_helpers=False):
    pids = descendants_of(os.getpid())
    if spares_helpers:
        pids = {pid for pid in pids if not is_helper(pid)}
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def is_helper(pid):
    """Whether a process unlinks what the others have left, and ends after them."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as command:
            return b"multiprocessing.resource_tracker" in command.read(4096)
    except OSError:
        return False


def descendants_of(root):
    parents = parents_of_all()
    found, new = set(), {root}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def children_of(pid):
    return {child for child, parent in parents_of_all().items() if parent == pid}


def parents_of_all():
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{entry}/stat", "rb") as stat:
                    # The name stands in parentheses and may hold anything, parentheses too.
                    parents[int(entry)] = int(stat.read().rpartition(b")")[2].split()[1])
    return parents
