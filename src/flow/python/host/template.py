"""The template: imports what all runs share, once, and then only forks.

    worker --control socket--> template --fork--> shim --fork--> run
       |                                            |             |
       +---------------- supervision ---------------+             |
       +------- job and events; standard output and error --------+

The control socket carries one message per run, with the run's file descriptors beside it.
"""

import contextlib
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import traceback

from pyoco_host.processes import (
    become_reaper,
    children_of,
    drain,
    end_all_below,
    ended_children,
    set_process_name,
    unblock_signals,
    wakeup_pipe,
)
from pyoco_host.shim import refuse, shim
from pyoco_host.wheels import explained, insert_path, search_first

# What every run needs; the last one pyoco imports only when it executes a flow.
SHARED_MODULES = (
    "pyoco",
    "pyoco.core.engine",
    "pyoco.discovery.loader",
    "pyoco.schemas.config",
    "concurrent.futures.thread",
)
# File descriptors of one run.
PIPES_PER_RUN = 4
# For one message on the control socket.
MAX_CONTROL_BYTES = 64 * 1024
# The end of a traceback is what tells most; the reply has to fit into one message.
MAX_TRACEBACK_CHARS = 8 * 1024
MAX_ERROR_CHARS = 4 * 1024


def template(control, settings):
    """Imports what all runs share, says `ready`, and forks a shim per message until the worker goes."""
    set_process_name("pyoco-template")
    become_reaper()
    for stream in (sys.stdout, sys.stderr):
        # Nothing may wait in a buffer that every run would then have a copy of.
        stream.reconfigure(line_buffering=True)
    try:
        resolver = load(settings)
    except BaseException as error:
        text = explained(text_of(error), settings)
        reply = {"failed": kind_of(error), "error": text, "python": python_version()}
        reply["traceback"] = traceback.format_exc()[-MAX_TRACEBACK_CHARS:]
        control.send(fitting(reply))
        return
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            stream.flush()
    # Children share these pages until a process writes to them; the collector would write.
    gc.collect()
    gc.freeze()
    ready = {"ready": True, "python": python_version(), "pyoco": pyoco_version()}
    control.send(json.dumps(ready).encode())
    serve(control, settings, resolver)


def fitting(reply):
    """The message of a failure, with as much of its traceback as there is room for."""
    while True:
        message = json.dumps(reply, ensure_ascii=False).encode("utf-8", "replace")
        if len(message) <= MAX_CONTROL_BYTES:
            return message
        reply["traceback"] = reply["traceback"][len(reply["traceback"]) // 2 + 1 :]


def serve(control, settings, resolver):
    unblock_signals()
    woken = wakeup_pipe()
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(woken, select.POLLIN)
    children = Children()
    is_open = True
    while is_open or children.shims:
        for fd, _ in poller.poll():
            if fd == woken:
                drain(woken)
                children.reap()
                continue
            message, fds = receive(control)
            if not message:
                # No more runs; the shims see by themselves whether the worker still wants theirs.
                is_open = False
                poller.unregister(control)
                continue
            start_shim(fds, control, settings, resolver, children)
    end_all_below(woken)


def receive(control):
    try:
        flags = socket.MSG_CMSG_CLOEXEC
        message, fds, _, _ = socket.recv_fds(control, MAX_CONTROL_BYTES, 2 * PIPES_PER_RUN, flags)
    except ConnectionResetError:
        return b"", []
    return message, fds


def start_shim(fds, control, settings, resolver, children):
    pid = -1
    try:
        if len(fds) == PIPES_PER_RUN:
            pid = os.fork()
        elif fds:
            refuse(fds[0], "the template process has no file descriptors left")
    except OSError as error:
        refuse(fds[0], error)
    if pid == 0:
        status = 70
        try:
            control.close()
            status = shim(fds, settings, resolver)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if pid > 0:
        children.shims.add(pid)
    for fd in fds:
        os.close(fd)


class Children:
    """Shims, what the resolver has started, and what shims have left behind when they were killed."""

    def __init__(self):
        self.of_resolver = children_of(os.getpid())
        self.shims = set()
        # A shim that was killed leaves its run to us, and no program needs that run any more.
        self.has_strays = False

    def reap(self):
        for pid, status in ended_children():
            self.has_strays |= status != 0 and pid in self.shims
            self.shims.discard(pid)
            self.of_resolver.discard(pid)
        if self.has_strays:
            # Their end leaves us what they have started, and comes here again.
            strays = children_of(os.getpid()) - self.shims - self.of_resolver
            self.has_strays = bool(strays)
            for pid in strays:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def load(settings):
    """Imports pyoco and the resolver; returns its function, or None when none is wanted."""
    if sys.path and sys.path[0] == "":
        # Where the folder is gone, there is nothing in it to import.
        with contextlib.suppress(OSError):
            sys.path[0] = os.getcwd()
    search_first(settings)
    for name in SHARED_MODULES:
        importlib.import_module(name)
    # 0.8 compiles graphs; 0.6 executes them.
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("pyoco.dsl.graph")
    if settings["search_path"]:
        # Every document has all of them looked up; what is read here, no run has to read again.
        with contextlib.suppress(Exception):
            importlib.metadata.entry_points()
    if settings["resolver"] is None:
        return None
    place, _, function = settings["resolver"].rpartition(":")
    if place.endswith(".py"):
        found = import_file(place, settings)
    else:
        found = importlib.import_module(place)
    for name in function.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{settings['resolver']} is not callable")
    return found


def import_file(path, settings):
    """Imports a file as a module of its own name, with its neighbours importable."""
    path = os.path.abspath(path)
    name = os.path.splitext(os.path.basename(path))[0]
    insert_path(os.path.dirname(path), settings)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def kind_of(error):
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "pyoco":
        return "no_pyoco"
    return "load"


def text_of(error):
    text = str(error) or repr(error)
    return f"{type(error).__name__}: {text}"[:MAX_ERROR_CHARS]


def python_version():
    return ".".join(str(number) for number in sys.version_info[:3])


def pyoco_version():
    try:
        from importlib.metadata import version

        return version("pyoco")
    except Exception:
        return None
