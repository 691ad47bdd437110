"""The JSON of the values of tasks, as far as they are small and tell it soon."""

import collections
import contextlib
import dataclasses
import json
import threading
import time

# The readers of JSON down the line give up at 128 levels, some of which are the document's own.
MAX_KEPT_LEVELS = 100
# The largest that still is a floating point number for them.
MAX_KEPT_INTEGER = 2**1023
# For one repr, and for all of a run: a task waits meanwhile.
REPR_SEC = 1.0
ALL_REPRS_SEC = 3.0
BOXES = (list, tuple, set, frozenset, collections.deque)
SIZED = (str, bytes, bytearray, dict, *BOXES)


class Values:
    """Turns values to JSON, within a size for each and a time for all of a run."""

    def __init__(self, max_bytes):
        self.max_bytes = max_bytes
        self.left_sec = ALL_REPRS_SEC

    def json_of(self, value):
        """Whatever a value does to those who look at it, the report goes on."""
        try:
            if weight_exceeds(value, self.max_bytes):
                return json.dumps(too_large(value))
            text = json.dumps(value)
        except BaseException:
            text = json.dumps(self.repr_of(value)[: self.max_bytes + 1])
        return text if len(text) <= self.max_bytes else json.dumps(too_large(value))

    def repr_of(self, value):
        """A repr may be code of the flow, which blocks for ever: it gets a thread of its own."""
        if self.left_sec <= 0:
            return f"<{type(value).__name__}: no time was left for its repr>"
        said = []
        thread = threading.Thread(target=lambda: said.append(repr_or_word(value)), daemon=True)
        began = time.monotonic()
        try:
            thread.start()
        except RuntimeError:
            return repr_or_word(value)
        thread.join(min(REPR_SEC, self.left_sec))
        self.left_sec -= time.monotonic() - began
        return said[0] if said else f"<{type(value).__name__}: its repr took too long>"


def repr_or_word(value):
    with contextlib.suppress(BaseException):
        return repr(value)
    return f"<{type(value).__name__} without a repr>"


def too_large(value):
    return f"<{type(value).__name__}: too large to be kept>"


class Unreadable(ValueError):
    """Python would write it as JSON that others cannot read."""


def weight_exceeds(value, max_bytes):
    """Whether the JSON of `value`, or its repr, is longer for sure; found out without making it."""
    left = max_bytes
    level = [value]
    for _ in range(MAX_KEPT_LEVELS):
        below = []
        for value in level:
            is_sized = isinstance(value, SIZED)
            left -= len(value) if is_sized else 1
            if left < 0:
                return True
            if isinstance(value, dict):
                below.extend(value.keys())
                below.extend(value.values())
            elif isinstance(value, BOXES):
                below.extend(value)
            elif isinstance(value, int) and abs(value) > MAX_KEPT_INTEGER:
                raise Unreadable
            elif dataclasses.is_dataclass(value) and not isinstance(value, type):
                below.extend(getattr(value, field.name, None) for field in dataclasses.fields(value))
        if not below:
            return False
        level = below
    raise Unreadable
