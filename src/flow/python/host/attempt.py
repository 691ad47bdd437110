"""The run: executes one flow with pyoco's own engine, and tells the worker."""

import atexit
import contextlib
import faulthandler
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback

from pyoco_host.flows import FlowNotFound, flow_of_document, flow_of_resolver
from pyoco_host.output import NoCapture, TaskStream
from pyoco_host.processes import close_wakeup_pipe, end_with, set_process_name
from pyoco_host.progress import Progress
from pyoco_host.tasks import Tasks, Unwanted
from pyoco_host.wheels import explained

MAX_ERROR_CHARS = 8 * 1024
# What pyoco makes for each run in the working directory, before anything of the flow.
ARTIFACTS = "artifacts"
NO_THREAD = "can't start new thread"


def run(fds, settings, resolver, shim_pid):
    """Executes one flow; everything before it only makes this process a place of its own."""
    set_process_name("pyoco-run")
    if not end_with(shim_pid):
        return 1
    # Of its own, without a terminal: what asks there gets an error instead of waiting for ever.
    os.setsid()
    close_wakeup_pipe()
    of_shim = (signal.SIGCHLD, signal.SIGCONT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    for number in of_shim:
        signal.signal(number, signal.SIG_DFL)
    socket_fd, out, err = fds
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory_limit = settings["memory_limit"]
    if memory_limit is not None:
        # What a process may write to, rather than its address space: threads reserve far more
        # of the latter than they use.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
    faulthandler.enable(file=2)
    reseed()
    worker = socket.socket(fileno=socket_fd)
    orders = worker.makefile("rb")
    line = orders.readline()
    if not line.endswith(b"\n"):
        # The worker does not want it any more, or has only asked whether a run could begin.
        trouble = host_trouble()
        if trouble is not None:
            with contextlib.suppress(OSError):
                worker.sendall(json.dumps(host_fault(trouble)).encode() + b"\n")
        return 0
    Attempt(json.loads(line), worker, orders, settings, resolver).execute()
    return 0


def host_trouble():
    """What keeps this machine from executing any flow, or None."""
    try:
        os.makedirs(ARTIFACTS, exist_ok=True)
    except OSError as error:
        return f"cannot make the folder {ARTIFACTS}, which pyoco needs, where the worker runs: {error}"
    try:
        start_thread(int).join()
    except RuntimeError as error:
        return str(error)
    return None


def start_thread(target):
    thread = threading.Thread(target=target, name="pyoco-cancel", daemon=True)
    thread.start()
    return thread


def host_fault(error):
    return {"end": "host_fault", "error": error[:MAX_ERROR_CHARS]}


def reseed():
    """Python reseeds `random` in a forked child; numpy's global generator would repeat itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


class Attempt:
    """One execution of one flow, and its reports."""

    def __init__(self, job, worker, orders, settings, resolver):
        self.job = job
        self.worker = worker
        self.orders = orders
        self.settings = settings
        self.resolver = resolver
        self.cancelled = False
        self.engine = None
        self.send_lock = threading.Lock()
        self.progress = Progress(self.send, settings["max_value_bytes"])
        sys.stdout = TaskStream(1, job["token"], self.progress)
        sys.stderr = TaskStream(2, job["token"], self.progress)
        self.progress.streams = (sys.stdout, sys.stderr)
        self.tasks = Tasks(self.progress, lambda: self.cancelled, self.end_by_limit)
        self.progress.on_given_up = self.tasks.give_up
        self.end_lock = threading.Lock()

    def send(self, line):
        # A failed send means that the worker is gone, and the shim is about to end this process.
        with self.send_lock, contextlib.suppress(OSError):
            self.worker.sendall(line + b"\n")

    def execute(self):
        trouble = host_trouble()
        if trouble is not None:
            self.send(json.dumps(host_fault(trouble)).encode())
            return
        start_thread(self.listen)
        # From here on a fault of the host may be the flow's own doing. Said before any code of the flow can
        # keep it from being said.
        self.send(json.dumps({"begun": True}).encode())
        self.end(self.outcome())

    def end(self, end):
        """Tells the end, once, and lets what the flow has registered for it have its turn."""
        if not self.end_lock.acquire(blocking=False):
            # Another thread does so, and ends the process.
            threading.Event().wait()
        self.progress.close()
        self.send(json.dumps(end).encode())
        # The worker ends the process when this takes too long.
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        self.progress.close()

    def end_by_limit(self, error):
        """On a thread of its own, since the engine's is in the task."""
        self.end(self.failure(error))
        os._exit(0)

    def listen(self):
        """Waits for the one thing that may still be said: cancel."""
        with contextlib.suppress(OSError, ValueError):
            if self.orders.readline():
                self.cancelled = True
                # The engine knows the run only while it executes it.
                while not (self.engine and self.has_noticed()):
                    time.sleep(0.01)

    def has_noticed(self):
        self.engine.cancel(self.job["run_id"])
        return getattr(self.context.status, "value", None) != "RUNNING"

    def outcome(self):
        try:
            flow, params = self.build()
            if self.cancelled:
                return {"end": "cancelled"}
            self.run_flow(flow, params)
            status = str(getattr(self.context.status, "value", self.context.status))
            if status == "FAILED":
                return {"end": "failed", "error": "a task has set the status of the run to FAILED"}
            return {"end": "cancelled" if status.startswith("CANCEL") else "completed"}
        except FlowNotFound as error:
            return {"end": "flow_not_found", "error": str(error)[:MAX_ERROR_CHARS]}
        except MemoryError as error:
            limit = self.settings["memory_limit"]
            if limit is None:
                return self.failure(error)
            text = f"memory limit of {limit} bytes exceeded (--run-memory-limit)"
            return {"end": "failed", "error": text}
        except BaseException as error:
            return self.failure(error)

    def failure(self, error):
        if isinstance(error, Unwanted) and self.cancelled:
            return {"end": "cancelled"}
        if self.progress.begun:
            self.tasks.end(error)
        # The engine starts threads, too; what the flow itself has used up is told apart by the worker.
        if isinstance(error, RuntimeError) and NO_THREAD in str(error):
            trouble = host_trouble()
            if trouble is not None:
                return host_fault(trouble)
        if not self.progress.begun:
            # No record will show where it happened, so the log has to.
            traceback.print_exc()
        text = ""
        with contextlib.suppress(Exception):
            text = str(error)
        if not text or isinstance(error, (SystemExit, KeyboardInterrupt)):
            text = f"{type(error).__name__}: {text}".removesuffix(": ")
        return {"end": "failed", "error": explained(text[:MAX_ERROR_CHARS], self.settings)}

    def build(self):
        """The flow and its parameters."""
        name, params = self.job["flow_name"], self.job["params"]
        if self.job["workflow_yaml"] is None:
            return flow_of_resolver(self.resolver, name), params
        flow, defaults = flow_of_document(self.job["workflow_yaml"], name)
        return flow, {**defaults, **params}

    def run_flow(self, flow, params):
        from pyoco.core import engine
        from pyoco.core.models import RunContext

        if hasattr(engine, "RunLogCapture"):
            # The engine's own keeps all that a task prints in memory until the end of the run.
            engine.RunLogCapture = NoCapture
        self.context = RunContext(run_id=self.job["run_id"])
        self.progress.begin(flow, self.context)
        self.engine = self.tasks.engine(trace_backend=self.progress.tracer())
        self.engine.run(flow, params, run_context=self.context)
