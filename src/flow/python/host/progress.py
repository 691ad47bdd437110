"""Tells the worker how the tasks are getting on: the newest state of each, however fast it changes."""

import contextlib
import graphlib
import json
import sys
import threading
import time

from pyoco_host.values import Values, too_large

# From a change to its report, so that a short flow needs one report; then to the next report.
FIRST_REPORT_SEC = 0.005
REPORT_PAUSE_SEC = 0.02
# Reports with all values that tasks wait for before they begin; later ones have a pause between them.
FIRST_FULL_REPORTS = 64
MAX_ERROR_CHARS = 8 * 1024
# The end of a traceback says most.
MAX_TRACEBACK_CHARS = 16 * 1024
# All values of all tasks together, in units of the largest single one.
MAX_KEPT_VALUES = 4
# Tasks that a run may make while it is executed; what comes after has no record.
MAX_LATE_TASKS = 10_000


class Progress:
    """The tasks of one run, by their number in the list that the worker got first."""

    def __init__(self, send, max_value_bytes):
        self.send = send
        self.max_value_bytes = max_value_bytes
        self.values = Values(max_value_bytes)
        self.begun = False
        self.flow_name = ""
        self.names = []
        self.numbers = {}
        self.room = 0
        # By name: seconds that the task has from its start, for the worker to see to.
        self.limits = {}
        # Numbers of tasks that have changed since the last report.
        self.changed = set()
        self.has_new_names = False
        self.wake = threading.Event()
        self.report_lock = threading.Lock()
        self.full_reports = FIRST_FULL_REPORTS
        self.reported_at = 0.0
        self.kept_bytes = {}
        self.all_kept_bytes = 0
        self.running = set()
        self.of_thread = threading.local()
        self.streams = ()
        # Called when the engine goes on without a task whose limit has passed.
        self.on_given_up = None

    def begin(self, flow, context):
        """Tells the flow's name and tasks, and follows what the engine notes in `context`."""
        from pyoco.core.models import TaskRecord, TaskState

        self.flow_name = str(flow.name)
        self.names = in_order(flow)
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.room = len(self.names) + MAX_LATE_TASKS
        self.states = TaskState
        self.context = context
        # The engine takes what is there and makes what is missing.
        context.tasks = NoticingStates(self)
        records = context.task_records = NoticingRecords(self, noticing_record(TaskRecord, self.notice))
        for name in self.names:
            records[name] = TaskRecord()
        self.changed.clear()
        self.wake.clear()
        self.tell_names()
        self.begun = True
        threading.Thread(target=self.report, name="pyoco-progress", daemon=True).start()

    def tell_names(self):
        self.has_new_names = False
        names = [str(name) for name in self.names]
        self.send(json.dumps({"flow": self.flow_name, "tasks": names}).encode())

    def number_of(self, name):
        """The number of a task, which may be one that the run has just made; None when there is no room."""
        number = self.numbers.get(name)
        if number is None and len(self.names) < self.room:
            number = self.numbers[name] = len(self.names)
            self.names.append(name)
            self.has_new_names = True
        return number

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
            self.tell_all()

    def tell_all(self):
        # Taken out before it is read: a change meanwhile puts it in again.
        while self.changed:
            self.tell(self.line_of, self.changed.pop())
        self.reported_at = time.monotonic()

    def tell_start(self):
        """What the worker has to know before code begins that may keep us from telling it: which tasks have
        ended and which one begins. With their values, unless that comes too often.
        """
        with self.report_lock:
            if self.full_reports > 0 or time.monotonic() - self.reported_at >= REPORT_PAUSE_SEC:
                self.full_reports -= 1
                self.tell_all()
                return
            for number in tuple(self.changed):
                self.tell(self.head_line_of, number)

    def tell(self, line_of, number):
        # A flow may have put anything into a record.
        with contextlib.suppress(Exception):
            line = line_of(number)
            if self.has_new_names:
                self.tell_names()
            self.send(line)

    def head_of(self, number):
        name = self.names[number]
        record = self.context.ensure_task_record(name)
        state = getattr(self.context.tasks.get(name), "value", "PENDING")
        has_ended = state not in ("PENDING", "RUNNING")
        error = None if record.error is None else str(record.error)
        trace = record.traceback
        return {
            "task": number,
            "state": state,
            "limit_sec": self.limits.get(name) if state == "RUNNING" else None,
            "started_at": record.started_at,
            # In a loop these are still those of the round before.
            "ended_at": record.ended_at if has_ended else None,
            "duration_ms": record.duration_ms if has_ended else None,
            # An exception without a text has a type at least, which ends its traceback.
            "error": None if error is None else (error or last_line(trace))[:MAX_ERROR_CHARS],
            "traceback": None if trace is None else str(trace)[-MAX_TRACEBACK_CHARS:],
        }

    def head_line_of(self, number):
        return json.dumps({**self.head_of(number), "inputs": {}, "output": None, "artifacts": {}}).encode()

    def line_of(self, number):
        head = self.head_of(number)
        record = self.context.ensure_task_record(self.names[number])
        self.all_kept_bytes -= self.kept_bytes.pop(number, 0)
        inputs = ",".join(
            f"{json.dumps(str(key))}:{self.kept(value, number)}"
            for key, value in dict(record.inputs or {}).items()
        )
        has_ended = head["state"] not in ("PENDING", "RUNNING")
        output = self.kept(record.output, number) if has_ended else "null"
        artifacts = self.kept(record.artifacts, number)
        values = f'"inputs":{{{inputs}}},"output":{output},"artifacts":{artifacts}'
        return f"{json.dumps(head)[:-1]},{values}}}".encode()

    def kept(self, value, number):
        """The JSON of a value; of one that has none its repr, of one that is too large a word."""
        text = self.values.json_of(value)
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

    def end(self, name, state, error):
        """Notes the end of a task whose thread is not heard any more."""
        record = self.context.ensure_task_record(name)
        record.ended_at = time.time()
        if record.started_at is not None:
            record.duration_ms = (record.ended_at - record.started_at) * 1000
        record.error = str(error)
        record.traceback = None
        record.state = state
        self.context.tasks[name] = state

    def fail(self, name, error):
        self.end(name, self.states.FAILED, error)

    def cancel(self, name, why):
        self.end(name, self.states.CANCELLED, why)

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
                number = progress.numbers.get(node_name, -1)
                if getattr(progress.of_thread, "number", None) == number:
                    progress.ended(node_name)
                else:
                    # The engine's own thread: what has failed was said, or its limit has passed.
                    progress.on_given_up(node_name, error)

        return Tracer()


class NoticingStates(dict):
    """The engine's map of task states; says which one was set."""

    def __init__(self, progress):
        super().__init__()
        self.progress = progress

    def __setitem__(self, name, state):
        super().__setitem__(name, state)
        number = self.progress.number_of(name)
        # That all tasks are PENDING at first needs no telling.
        if number is not None and getattr(state, "value", state) != "PENDING":
            self.progress.notice(number)

    def __reduce__(self):
        return dict, (dict(self),)


class NoticingRecords(dict):
    """The records of all tasks, also of those that are made while the run is executed."""

    def __init__(self, progress, record_class):
        super().__init__()
        self.progress = progress
        self.record_class = record_class

    def __setitem__(self, name, record):
        number = self.progress.number_of(name)
        if number is not None and not isinstance(record, self.record_class):
            noticing = self.record_class()
            noticing.__dict__.update(getattr(record, "__dict__", {}), number=number)
            record = noticing
            self.progress.notice(number)
        super().__setitem__(name, record)

    def __reduce__(self):
        return dict, (dict(self),)


def noticing_record(record_class, notice):
    """A task record that says when one of its fields was set, for the last ones come after the state."""

    class NoticingRecord(record_class):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            number = self.__dict__.get("number")
            if number is not None:
                notice(number)

        def __reduce__(self):
            # Whoever pickles or copies it gets the engine's own.
            plain = record_class()
            plain.__dict__.update(self.__dict__)
            del plain.__dict__["number"]
            return plain.__reduce_ex__(0)

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
            ready = sorted(sorter.get_ready(), key=str)
            names.extend(name for name in ready if name in waits_for)
            sorter.done(*ready)
    except graphlib.CycleError:
        return sorted(waits_for, key=str)
    return names
