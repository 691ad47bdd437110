"""What a run prints: passed on at once, marked with the task that printed it, kept nowhere."""

import contextlib
import io
import os
import sys
import threading

# Text without a newline is passed on when it is this long.
MAX_PARTIAL_BYTES = 8192


class TaskStream(io.TextIOBase):
    """A text stream onto a pipe. When the task changes, a mark goes first: NUL, the run's token,
    the task's number or -1, NUL. Lines leave in one write each, so that a process that dies has
    said all that it has printed.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    mode = "w"
    line_buffering = True

    def __init__(self, fd, token, progress):
        self.fd = fd
        self.name = "<stdout>" if fd == 1 else "<stderr>"
        self.token = token
        self.progress = progress
        self.marked = -1
        self.buffer = TaskBytes(self)
        self.forget()
        # Another thread may hold the lock in the moment of a fork.
        os.register_at_fork(after_in_child=self.forget)

    def forget(self):
        self.lock = threading.RLock()
        self.partials = {}

    def writable(self):
        return True

    def fileno(self):
        return self.fd

    def isatty(self):
        return False

    def reconfigure(self, **_):
        """What programs ask for, UTF-8 and whole lines, is how it is."""

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.put(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def put(self, data):
        thread = threading.get_ident()
        with self.lock:
            partial = self.partials.setdefault(thread, bytearray())
            partial += data
            if b"\n" in data or len(partial) >= MAX_PARTIAL_BYTES:
                del self.partials[thread]
                self.pass_on(partial)

    def flush(self):
        with self.lock:
            partial = self.partials.pop(threading.get_ident(), None)
            if partial:
                self.pass_on(partial)

    def finish(self):
        """Flushes what any thread has left behind."""
        with self.lock:
            for partial in self.partials.values():
                self.pass_on(partial)
            self.partials = {}

    def mark(self, task):
        """Makes what comes next, also from code that writes to the descriptor itself, the task's."""
        with self.lock:
            self.marked = task
            self.write_all(self.mark_of(task))

    def mark_of(self, task):
        return b"\0%s %d\0" % (self.token.encode(), task)

    def pass_on(self, data):
        task = self.progress.current()
        if task != self.marked:
            self.marked = task
            data = self.mark_of(task) + data
        self.write_all(data)

    def write_all(self, data):
        rest = memoryview(data)
        # The flow may have closed the descriptor; what it then prints is its own loss.
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self.fd, rest) :]


class TaskBytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes as they are."""

    def __init__(self, stream):
        self.stream = stream

    def writable(self):
        return True

    def fileno(self):
        return self.stream.fd

    def write(self, data):
        data = bytes(data)
        self.stream.put(data)
        return len(data)

    def flush(self):
        self.stream.flush()


class NoCapture:
    """Stands in for the engine's capture, which would keep all that a task prints in memory."""

    def __init__(self, stdout=None, stderr=None):
        pass

    @contextlib.contextmanager
    def activate(self):
        yield self

    @contextlib.contextmanager
    def capture_task(self):
        nothing = io.StringIO()
        try:
            yield nothing, nothing
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
