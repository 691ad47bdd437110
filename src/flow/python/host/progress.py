"""Tells the worker how the tasks are getting on: the newest state of each, however fast it changes."""

import contextlib
import graphlib
import json
import sys
import threading
import time

# From a change to its report, so that a short flow needs one report; then to the next report.
FIRST_REPORT_SEC = 0.005
REPORT_PAUSE_SEC = 0.02
MAX_ERROR_CHARS = 8 * 1024
# The end of a traceback says most.
MAX_TRACEBACK_CHARS = 16 * 1024
# All values of all tasks together, in units of the largest single one.
MAX_KEPT_VALUES = 4
# The readers of JSON down the line give up at 128 levels, some of which are the document's own.
MAX_KEPT_LEVELS = 100
# The largest that still is a floating point number for them.
MAX_KEPT_INTEGER = 2**1023


class Progress:
    """The tasks of one run, by their number in the list that the worker got first."""

    def __init__(self, send, max_value_bytes):
        self.send = send
        self.max_value_bytes = max_value_bytes
        self.begun = False
        self.names = []
        self.numbers = {}
        # Numbers of tasks that have changed since the last report.
        self.changed = set()
        self.wake = threading.Event()
        self.report_lock = threading.Lock()
        self.kept_bytes = {}
        self.all_kept_bytes = 0
        self.running = set()
        self.of_thread = threading.local()
        self.streams = ()

    def begin(self, flow, context):
        """Tells the flow's name and tasks, and follows what the engine notes in `context`."""
        from pyoco.core.models import TaskRecord

        self.names = in_order(flow)
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.context = context
        record_class = noticing_record(TaskRecord, self.notice)
        # The engine takes what is there and makes what is missing.
        context.tasks = NoticingStates(self)
        context.task_records = {name: record_class() for name in self.names}
        for name, record in context.task_records.items():
            record.__dict__["number"] = self.numbers[name]
        self.send(json.dumps({"flow": str(flow.name), "tasks": self.names}).encode())
        self.begun = True
        threading.Thread(target=self.report, name="pyoco-progress", daemon=True).start()

    def notice(self, number):
        self.changed.add(number)
        if not self.wake.is_set():
            self.wake.set()

    def report(self):
        while True:
            self.wake.wait()
            self.wake.clear()
            time.sleep(FIRST_REPORT_SEC)
            self.tell_changes()
            time.sleep(REPORT_PAUSE_SEC)

    def tell_changes(self):
        with self.report_lock:
            # Taken out before it is read: a change meanwhile puts it in again.
            while self.changed:
                self.send(self.line_of(self.changed.pop()))

    def line_of(self, number):
        name = self.names[number]
        record = self.context.task_records[name]
        state = getattr(self.context.tasks.get(name), "value", "PENDING")
        has_ended = state not in ("PENDING", "RUNNING")
        error = None if record.error is None else str(record.error)
        trace = record.traceback
        head = {
            "task": number,
            "state": state,
            "started_at": record.started_at,
            # In a loop these are still those of the round before.
            "ended_at": record.ended_at if has_ended else None,
            "duration_ms": record.duration_ms if has_ended else None,
            # An exception without a text has a type at least, which ends its traceback.
            "error": None if error is None else (error or last_line(trace))[:MAX_ERROR_CHARS],
            "traceback": None if trace is None else str(trace)[-MAX_TRACEBACK_CHARS:],
        }
        self.all_kept_bytes -= self.kept_bytes.pop(number, 0)
        inputs = ",".join(
            f"{json.dumps(str(key))}:{self.kept(value, number)}"
            for key, value in dict(record.inputs or {}).items()
        )
        output = self.kept(record.output, number) if has_ended else "null"
        artifacts = self.kept(record.artifacts, number)
        values = f'"inputs":{{{inputs}}},"output":{output},"artifacts":{artifacts}'
        return f"{json.dumps(head)[:-1]},{values}}}".encode()

    def kept(self, value, number):
        """The JSON of a value; of one that has none its repr, of one that is too large a word."""
        text = json_of(value, self.max_value_bytes)
        if self.all_kept_bytes + len(text) > MAX_KEPT_VALUES * self.max_value_bytes:
            return json.dumps(too_large(value))
        self.all_kept_bytes += len(text)
        self.kept_bytes[number] = self.kept_bytes.get(number, 0) + len(text)
        return text

    def close(self):
        """Reports what has not been reported yet."""
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(Exception):
                stream.flush()
        for stream in self.streams:
            stream.finish()
        if self.begun:
            self.tell_changes()

    def current(self):
        """Number of the task that the calling thread works for, -1 when that is not known."""
        number = getattr(self.of_thread, "number", None)
        if number is not None:
            return number
        # A thread that the only running task has started.
        running = tuple(self.running)
        return running[0] if len(running) == 1 else -1

    def started(self, name):
        number = self.numbers.get(name, -1)
        self.of_thread.number = number
        self.running.add(number)
        if len(self.running) == 1:
            for stream in self.streams:
                stream.mark(number)

    def ended(self, name):
        # What is printed without a newline is this task's, and so is what went to streams that the
        # resolver has kept, which know of no task.
        for stream in (*self.streams, sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(Exception):
                stream.flush()
        self.of_thread.number = None
        self.running.discard(self.numbers.get(name, -1))

    def tracer(self):
        """What the engine calls on the thread that executes a task."""
        from pyoco.trace.backend import TraceBackend

        progress = self

        class Tracer(TraceBackend):
            def on_flow_start(self, flow_name, run_id=None):
                pass

            def on_flow_end(self, flow_name):
                pass

            def on_node_start(self, node_name):
                progress.started(node_name)

            def on_node_end(self, node_name, duration_ms):
                progress.ended(node_name)

            def on_node_error(self, node_name, error):
                progress.ended(node_name)

        return Tracer()


class NoticingStates(dict):
    """The engine's map of task states; says which one was set."""

    def __init__(self, progress):
        super().__init__()
        self.progress = progress

    def __setitem__(self, name, state):
        super().__setitem__(name, state)
        number = self.progress.numbers.get(name)
        # That all tasks are PENDING at first needs no telling.
        if number is not None and state.value != "PENDING":
            self.progress.notice(number)


def noticing_record(record_class, notice):
    """A task record that says when one of its fields was set, for the last ones come after the state."""

    class NoticingRecord(record_class):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            number = self.__dict__.get("number")
            if number is not None:
                notice(number)

    return NoticingRecord


def last_line(text):
    return (text or "").strip().rpartition("\n")[2]


def in_order(flow):
    """Task names, each after those that it waits for, else by name."""
    waits_for = {task.name: {other.name for other in task.dependencies} for task in flow.tasks}
    names = []
    sorter = graphlib.TopologicalSorter(waits_for)
    try:
        sorter.prepare()
        while sorter.is_active():
            ready = sorted(sorter.get_ready())
            names.extend(name for name in ready if name in waits_for)
            sorter.done(*ready)
    except graphlib.CycleError:
        return sorted(waits_for)
    return names


def json_of(value, max_bytes):
    """Whatever a value does to those who look at it, the report goes on."""
    try:
        if weight_exceeds(value, max_bytes):
            return json.dumps(too_large(value))
        text = json.dumps(value)
    except BaseException:
        text = json.dumps(repr_of(value)[: max_bytes + 1])
    return text if len(text) <= max_bytes else json.dumps(too_large(value))


def repr_of(value):
    with contextlib.suppress(BaseException):
        return repr(value)
    return f"<{type(value).__name__} without a repr>"


def too_large(value):
    return f"<{type(value).__name__}: too large to be kept>"


class Unreadable(ValueError):
    """Python would write it as JSON that others cannot read."""


def weight_exceeds(value, max_bytes):
    """Whether the JSON of `value` is longer for sure; found out without making it."""
    left = max_bytes
    level = [value]
    for _ in range(MAX_KEPT_LEVELS):
        below = []
        for value in level:
            is_sized = isinstance(value, (str, bytes, dict, list, tuple))
            left -= len(value) if is_sized else 1
            if left < 0:
                return True
            if isinstance(value, dict):
                below.extend(value.keys())
                below.extend(value.values())
            elif isinstance(value, (list, tuple)):
                below.extend(value)
            elif isinstance(value, int) and abs(value) > MAX_KEPT_INTEGER:
                raise Unreadable
        if not below:
            return False
        level = below
    raise Unreadable
