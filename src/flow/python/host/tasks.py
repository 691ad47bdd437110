"""How the tasks of a run are executed: what pyoco's engine leaves to threads that nobody can end.

The engine waits for every thread that it has started, and looks at the time limit of a task in a flow without
loops only. Here a limit holds in each flow, the first failure ends the run, and after a cancel nothing begins
anew. A thread cannot be ended: it is left behind, what it does is not recorded, and its process ends with the
run.
"""

import concurrent.futures
import contextlib
import copy
import functools
import inspect
import os
import sys
import threading
import time
import traceback


class Unwanted(BaseException):
    """Ends the work on a task whose result nobody wants any more; pyoco goes on after an `Exception` alone."""


class Pool(concurrent.futures.ThreadPoolExecutor):
    """The engine's threads. Those of a run that is cancelled are waited for, as long as the worker lets them;
    else they end with the process.
    """

    def __init__(self, is_cancelled, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.is_cancelled = is_cancelled

    def __exit__(self, *_):
        self.shutdown(wait=self.is_cancelled(), cancel_futures=True)
        return False


@contextlib.contextmanager
def pool_of_engine(is_cancelled):
    """Has the next pool that is made be a `Pool`: the engine makes it before any code of the flow runs."""
    own = concurrent.futures.ThreadPoolExecutor

    def make(*args, **kwargs):
        concurrent.futures.ThreadPoolExecutor = own
        return Pool(is_cancelled, *args, **kwargs)

    concurrent.futures.ThreadPoolExecutor = make
    try:
        yield
    finally:
        concurrent.futures.ThreadPoolExecutor = own


class Work:
    """One task that is being executed."""

    def __init__(self, task):
        self.task = task
        self.calls = 0
        limit = task.timeout_sec
        self.due = time.monotonic() + limit if limit else None
        # Set when its limit has passed: what its thread does from then on is nobody's.
        self.is_left = False


class Tasks:
    """The tasks that are being executed, by name, and what has become of their limits."""

    def __init__(self, progress, is_cancelled, end_run):
        self.progress = progress
        self.is_cancelled = is_cancelled
        # Ends the run from another thread than the engine's.
        self.end_run = end_run
        self.has_loops = False
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.at_work = {}
        # Names of tasks that the engine has given up, also before they had begun.
        self.given_up = set()
        self.has_failed = False
        self.watcher = None

    def engine(self, **options):
        """pyoco's engine, which executes each task as `executing` has it."""
        from pyoco.core import engine

        tasks = self

        class Engine(engine.Engine):
            def _run_flow(self, flow, *rest):
                tasks.has_loops = flow.has_control_flow()
                # Also those that wait for a thread; the engine gives them up all the same.
                tasks.progress.limits.update({t.name: t.timeout_sec for t in flow.tasks if t.timeout_sec})
                with pool_of_engine(tasks.is_cancelled):
                    return super()._run_flow(flow, *rest)

            def _execute_task(self, task, ctx, *rest):
                with tasks.executing(task) as ours:
                    return super()._execute_task(ours, ctx, *rest)

        return Engine(**options)

    @contextlib.contextmanager
    def executing(self, task):
        """Gives a task that does the same with everything that belongs to it here."""
        work = Work(task)
        while self.has_failed and not self.is_cancelled():
            # The engine is about to end the run, by the error of the task that has failed.
            time.sleep(0.05)
        with self.lock:
            if self.has_failed or task.name in self.given_up:
                raise Unwanted
            self.at_work[task.name] = work
        if work.due is not None:
            self.progress.limits[task.name] = task.timeout_sec
            # There the engine leaves limits to us.
            if self.has_loops:
                self.watch()
        ours = copy.copy(task)
        ours.func = self.called(work)
        try:
            yield ours
        except Exception:
            # Before the engine learns of it, this thread would begin the next task.
            self.has_failed |= task.fail_policy != "isolate"
            raise
        finally:
            with self.lock:
                if self.at_work.get(task.name) is work:
                    del self.at_work[task.name]
            self.progress.ended(task.name)

    def called(self, work):
        func = work.task.func

        @functools.wraps(func)
        def call(*args, **kwargs):
            work.calls += 1
            if work.calls > 1 and self.is_cancelled():
                raise Unwanted
            # It may hold the interpreter's lock from here on, and then nobody can tell that it has begun.
            self.progress.tell_start()
            try:
                result = func(*args, **kwargs)
                if inspect.iscoroutine(result):
                    # Not at the top: each fork would copy it, and few flows need it.
                    import asyncio

                    result = asyncio.run(result)
            except BaseException:
                self.end_copy(traceback.print_exc, 1)
                if work.is_left:
                    raise Unwanted from None
                raise
            self.end_copy(lambda: None, 0)
            if work.is_left:
                raise Unwanted
            return result

        return call

    def end_copy(self, say, status):
        """Ends a process that a task has forked and that comes back to us: it has no engine to go back to."""
        if os.getpid() == self.pid:
            return
        with contextlib.suppress(BaseException):
            say()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        os._exit(status)

    def give_up(self, name, error):
        """The engine goes on without a task. It says so by an error of its own when the limit has passed."""
        limit = self.progress.limits.get(name)
        if limit is None or str(error) != f"Task exceeded timeout of {limit}s":
            return
        with self.lock:
            self.given_up.add(name)
        self.leave(name)
        self.progress.fail(name, error)

    def end(self, error):
        """The run has failed. It may be the limit of a task; what still is executed ends with its process."""
        for name, limit in tuple(self.progress.limits.items()):
            if str(error) == over_limit(name, limit):
                self.leave(name)
                self.progress.fail(name, error)
        for name, work in self.left():
            if not work.is_left:
                work.is_left = True
                self.progress.cancel(name, "ended with its run, which had failed")

    def leave(self, name):
        with self.lock:
            work = self.at_work.get(name)
            if work is not None:
                work.is_left = True

    def left(self):
        with self.lock:
            return list(self.at_work.items())

    def watch(self):
        """Sees to limits that the engine does not look at."""
        with self.changed:
            if self.watcher is None:
                self.watcher = threading.Thread(target=self.keep_limits, name="pyoco-limits", daemon=True)
                self.watcher.start()
            self.changed.notify()

    def keep_limits(self):
        while True:
            with self.changed:
                works = [work for work in self.at_work.values() if work.due is not None]
                due = min(works, key=lambda work: work.due, default=None)
                left = None if due is None else due.due - time.monotonic()
                if left is None or left > 0:
                    self.changed.wait(left)
                    continue
                due.is_left = True
            self.end_run(TimeoutError(over_limit(due.task.name, due.task.timeout_sec)))
            return


def over_limit(name, limit):
    """As the engine says it."""
    return f"Task '{name}' exceeded timeout of {limit}s"
