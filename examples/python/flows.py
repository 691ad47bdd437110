"""Flows for a worker: pyoco-worker --flow-resolver examples/python/flows.py:resolve_flow

Everything that is imported up here is loaded once, when the worker starts, and shared by all runs.
"""

import time
from collections import Counter

from pyoco import Flow, task


# The argument of a task is a parameter of the run or the output of the task of that name.
@task
def words(text):
    if not text.strip():
        raise ValueError("the text is empty")
    return text.lower().split()


# These two wait for `words` alone, so they run at the same time.
@task
def common(words):
    word, times = Counter(words).most_common(1)[0]
    return {"word": word, "times": times}


@task
def longest(words):
    return max(words, key=len)


@task
def report(words, common, longest):
    # What a task prints is kept with its record.
    print(f"{len(words)} words, {len(set(words))} different ones")
    return f"most common: {common['word']}, longest: {longest}"


# A task that takes long looks every now and then whether somebody has cancelled the run.
@task
def wait(ctx, seconds=600):
    for second in range(seconds):
        if ctx.is_cancelled:
            return f"stopped after {second} s"
        time.sleep(1)
    return f"waited for {seconds} s"


def resolve_flow(name):
    """The flow of that name; the worker asks once per run. None means that there is none."""
    if name == "text":
        return Flow(name="text") >> words >> [common, longest] >> report
    if name == "wait":
        return Flow(name="wait") >> wait
    return None
