"""The worker's wheels: that they are found before all else, and what to say of what they lack."""

import sys

HINT = (
    "neither this worker's Python nor one of its wheels has it; what a wheel depends on is not "
    "installed with it: upload that as a wheel too, or install it on the worker"
)


def search_first(settings):
    """Puts the unpacked wheels before everything else; later additions go behind them."""
    sys.path[:0] = settings["search_path"] or []


def insert_path(folder, settings):
    """Adds a folder right behind the wheels."""
    sys.path.insert(len(settings["search_path"] or []), folder)


def explained(text, settings):
    """The text of an error, with a hint when it is about a missing module and there are wheels."""
    if settings["search_path"] is None or "No module named" not in text:
        return text
    return f"{text} ({HINT})"
