"""The shim: the reaper of everything that a run starts.

It ends what is left when the run has ended, and ends all of it when the worker is gone. It takes
no part in what the run does, so it works also when the run is stuck in code that holds
Python's lock.
"""

import contextlib
import json
import os
import select
import signal
import time
import traceback

from pyoco_host.attempt import run
from pyoco_host.processes import (
    become_reaper,
    drain,
    kill_all_below,
    set_process_name,
    wakeup_pipe,
)

# How long what is left of a run is killed; only a process stuck in the kernel outlives it.
CLEANUP_SEC = 5.0


def shim(fds, settings, resolver):
    """Starts the run and stays until nothing of it is left; tells the worker how it ended."""
    set_process_name("pyoco-shim")
    os.setpgid(0, 0)
    become_reaper()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    woken = wakeup_pipe()
    worker, *of_run = fds
    run_pid = os.fork()
    if run_pid == 0:
        status = 70
        try:
            os.close(worker)
            status = run(of_run, settings, resolver)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    for fd in of_run:
        os.close(fd)
    with contextlib.suppress(OSError):
        # Whoever of the two comes first; before this its group cannot be signalled.
        os.setpgid(run_pid, run_pid)
    status = watch_over(run_pid, worker, woken)
    left = end_all_below(woken)
    if status is not None:
        how = {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {}
        report = {"exit": os.waitstatus_to_exitcode(status), "left": left, **how}
        with contextlib.suppress(OSError):
            os.write(worker, json.dumps(report).encode() + b"\n")
    return 0


def watch_over(run_pid, worker, woken):
    """Does what the worker says until the run ends; returns its wait status.

    None when the worker has gone: then nobody is left who would want it.
    """
    poller = select.poll()
    poller.register(worker, select.POLLIN)
    poller.register(woken, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == woken:
                drain(woken)
                status = reap(run_pid)
                if status is not None:
                    return status
                continue
            try:
                orders = os.read(worker, 4096)
            except OSError:
                orders = b""
            if not orders:
                return None
            if b"kill" in orders:
                kill_all_below()
            elif b"term" in orders:
                with contextlib.suppress(OSError):
                    os.killpg(run_pid, signal.SIGTERM)


def reap(run_pid):
    """Takes the ended children; the wait status of the run if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == run_pid:
            found = status


def end_all_below(woken):
    """Kills what is left and waits for it; the number of processes that could not be ended."""
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
        select.select([woken], [], [], 0.02)
        drain(woken)
