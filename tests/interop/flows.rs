//! The flows of these tests: a Python module with a resolver, and documents that name its functions.

/// `flows.py`. A flow is named like its only task, or stands in the resolver.
pub const FLOWS_PY: &str = r#"
import sys
import time
from pyoco import Flow, task


class Odd:
    def __repr__(self):
        return "<Odd>"


def pause():
    """The Python worker sometimes hangs after a flow that ends within a few milliseconds."""
    time.sleep(0.1)


def add(ctx, x, y=3):
    pause()
    return {"sum": x + y}


def twice(ctx, add):
    return add["sum"] * 2


def boom(ctx):
    pause()
    raise ValueError("it went boom")


def mute(ctx):
    pause()
    raise ValueError()


def leaves(ctx):
    pause()
    sys.exit(3)


def until_cancelled(ctx):
    for _ in range(1200):
        if ctx.is_cancelled:
            return "stopped"
        time.sleep(0.05)
    return "never told"


def after(ctx):
    return "after"


def not_json(ctx):
    pause()
    return {"odd": Odd()}


def numbers(ctx):
    pause()
    return {"nan": float("nan"), "inf": float("inf"), "pair": (1, 2)}


def text(ctx):
    pause()
    return "日本語 \U0001f600 \u0000"


def half_a_character(ctx):
    pause()
    return "a\ud800b"


def large(ctx):
    pause()
    return "x" * 400_000


TASKS = {
    function.__name__: function
    for function in (add, boom, mute, leaves, until_cancelled, not_json, numbers, text, half_a_character, large)
}
CHAINS = {
    "sums": [add, twice],
    "fails_midway": [after, boom, twice],
    "cancel_between": [until_cancelled, after],
}


def resolve_flow(name):
    if name == "broken_resolver":
        raise RuntimeError("the resolver broke")
    # New tasks for each run: `>>` writes what depends on what into the tasks themselves.
    chain = [task(step) for step in CHAINS.get(name) or [TASKS[name]]]
    flow = Flow(name=name)
    whole = chain[0]
    for step in chain[1:]:
        whole = whole >> step
    flow >> whole
    return flow
"#;

/// `steps.py`: plain functions for `callable`.
pub const STEPS_PY: &str = r#"
import time


def greet(name):
    time.sleep(0.1)
    return "hello " + name


def shout(greet):
    return greet.upper()


def fail():
    raise RuntimeError("step failed")
"#;

/// Runs `greet` and hands its result to `shout`.
pub const GREETING_YAML: &str = "\
version: 1
flow:
  graph: |
    greet >> shout
  defaults:
    name: Ann
tasks:
  greet:
    callable: steps:greet
  shout:
    callable: steps:shout
";

/// Fails in its second task.
pub const FAILING_YAML: &str = "\
version: 1
flow:
  graph: greet >> fail
  defaults: {name: Ann}
tasks:
  greet: {callable: 'steps:greet'}
  fail: {callable: 'steps:fail'}
";
