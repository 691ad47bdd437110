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
    ask_to_end,
    become_reaper,
    close_all_but,
    drain,
    end_all_below,
    ended_children,
    has_children,
    kill_all_below,
    own_pipe,
    set_process_name,
    unblock_signals,
    wakeup_pipe,
)

# From the end of a run until what it has left is asked to end: the helper processes of multiprocessing unlink
# shared memory meanwhile.
HELPERS_SEC = 0.1
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
    status = watch_over(run_pid, worker, woken, settings["term_grace_sec"])
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


def watch_over(run_pid, worker, woken, term_grace_sec):
    """Does what the worker says until the run has ended and what it has started has had its time; returns the
    run's wait status.

    LAPSED when the worker was silent for longer than its lease. None when the worker has gone: no
    program needs the status then.
    """
    lease = Lease()
    leftovers = None
    asked = set()
    killed = False
    os.set_blocking(worker, False)
    poller = select.poll()
    for fd in (worker, woken, lease.timer.fd):
        if fd >= 0:
            poller.register(fd, select.POLLIN)
    said = b""
    while True:
        poller.poll(shorter(lease.poll_timeout(), leftovers and leftovers.poll_timeout()))
        drain(woken)
        status = dict(ended_children()).get(run_pid)
        if status is not None:
            leftovers = Leftovers(status, term_grace_sec, asked)
        if leftovers is not None and leftovers.are_over():
            return leftovers.status
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
            kill_all_below(spares_helpers=not killed)
            killed = True
        elif b"term" in orders:
            ask_to_end(asked)


class Leftovers:
    """What a run has started and not waited for, when it has ended: helpers, which end by themselves in a
    moment, and the rest, which is asked to end and then killed.
    """

    def __init__(self, status, term_grace_sec, asked):
        # How the run itself has ended.
        self.status = status
        self.asked = asked
        self.ask_at = time.monotonic() + HELPERS_SEC
        self.kill_at = self.ask_at + term_grace_sec

    def are_over(self):
        """Whether nothing is left, or its time is over."""
        now = time.monotonic()
        if now >= self.ask_at:
            ask_to_end(self.asked)
        return now >= self.kill_at or not has_children()

    def poll_timeout(self):
        """Milliseconds until the next look. An orphan that ends is told; one that comes up is not."""
        return 1 if time.monotonic() < self.ask_at else 20


def shorter(*timeouts):
    return min((timeout for timeout in timeouts if timeout is not None), default=None)


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
