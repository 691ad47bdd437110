"""Flows that workers get as a wheel; see docs/wheels.md."""

from pyoco import Flow, task


@task
def words(text):
    return text.lower().split()


@task
def longest(words):
    return max(words, key=len)


def shout(ctx, text):
    return text.upper()


def register(registry):
    """The entry point of the group pyoco.tasks: gives tasks names for documents."""
    registry.task(shout, name="shout")


def resolve_flow(name):
    """The flow of that name; None means that there is none."""
    if name == "text":
        return Flow(name="text") >> words >> longest
    return None
