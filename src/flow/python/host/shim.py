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
    BootTimer,
    become_reaper,
    close_all_but,
    drain,
    end_all_below,
    ended_children,
    kill_all_below,
    own_pipe,
    set_process_name,
    unblock_signals,
    wakeup_pipe,
)

# In the place of a wait status: the worker stood still, and the run has to end.
LAPSED = object()


def shim(fds, settings, resolver):
    """Starts the run and stays until nothing of it is left; tells the worker how it ended."""
    set_process_name("pyoco-shim")
    os.setpgid(0, 0)
    become_reaper()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    unblock_signals()
    worker, *of_run = fds
    own_pid = os.getpid()
    try:
        # The worker sends the job when it has read this. Before, it may give the run to another
        # template, and closes this socket first.
        os.write(worker, json.dumps({"started": own_pid}).encode() + b"\n")
        woken = wakeup_pipe()
        run_pid = os.fork()
    except OSError as error:
        refuse(worker, error)
        return 0
    if run_pid == 0:
        status = 70
        try:
            os.close(worker)
            status = run(of_run, settings, resolver, own_pid)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    for fd in of_run:
        os.close(fd)
    # Whatever the resolver has open is not ours.
    close_all_but({0, 1, 2, worker, *own_pipe})
    with contextlib.suppress(OSError):
        # The run does the same; the first of the two counts. Before this its group cannot be signalled.
        os.setpgid(run_pid, run_pid)
    status = watch_over(run_pid, worker, woken)
    left = end_all_below(woken)
    if status is LAPSED:
        with contextlib.suppress(OSError):
            os.write(worker, json.dumps({"lapsed": left}).encode() + b"\n")
    elif status is not None:
        how = {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {}
        report = {"exit": os.waitstatus_to_exitcode(status), "left": left, **how}
        with contextlib.suppress(OSError):
            os.write(worker, json.dumps(report).encode() + b"\n")
    # What could not be ended is the template's from here on.
    return 1 if left else 0


def refuse(worker, reason):
    """Tells the worker that the run was not started."""
    with contextlib.suppress(OSError):
        os.write(worker, json.dumps({"refused": str(reason)}).encode() + b"\n")


class Lease:
    """Until when the run may go on without a further word of the worker.

    Times are nanoseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps. When the worker
    stands still, another one gets its runs; what runs here has to end before that.
    """

    def __init__(self):
        # None before the first lease, when the run has no job yet.
        self.until = None
        self.has_gap = False
        self.timer = BootTimer()

    def renew(self, begin, until):
        self.has_gap |= self.until is not None and begin > self.until
        self.until = until
        self.timer.set(until)

    def has_lapsed(self):
        return self.has_gap or (self.until is not None and boot_time() >= self.until)

    def poll_timeout(self):
        """Milliseconds, as `poll` takes them."""
        return None if self.until is None else max(0, self.until - boot_time()) / 1e6 + 1


def boot_time():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def watch_over(run_pid, worker, woken):
    """Does what the worker says until the run ends; returns its wait status.

    LAPSED when the worker was silent for longer than its lease. None when the worker has gone: no
    program needs the status then.
    """
    lease = Lease()
    os.set_blocking(worker, False)
    poller = select.poll()
    for fd in (worker, woken, lease.timer.fd):
        if fd >= 0:
            poller.register(fd, select.POLLIN)
    said = b""
    while True:
        poller.poll(lease.poll_timeout())
        drain(woken)
        status = dict(ended_children()).get(run_pid)
        if status is not None:
            return status
        # All of it before the clock is looked at: what the worker said while this process stood still.
        heard, is_open = read_all(worker)
        *orders, said = (said + heard).split(b"\n")
        for order in orders:
            if order.startswith(b"lease "):
                lease.renew(*map(int, order.split()[1:]))
        if not is_open:
            return None
        if lease.has_lapsed():
            return LAPSED
        if b"kill" in orders:
            kill_all_below()
        elif b"term" in orders:
            with contextlib.suppress(OSError):
                os.killpg(run_pid, signal.SIGTERM)


def read_all(worker):
    """What the worker has said, and whether it may say more."""
    heard = b""
    while True:
        try:
            part = os.read(worker, 4096)
        except BlockingIOError:
            return heard, True
        except OSError:
            return heard, False
        if not part:
            return heard, False
        heard += part
