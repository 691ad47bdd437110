"""Where a flow comes from: the resolver, or a `flow.yaml` read and compiled by the installed pyoco."""

import contextlib
import io
import os
import sys

# What the task loader had to say, beside an error that it is likely to explain.
MAX_COMPLAINT_CHARS = 2000


class FlowNotFound(Exception):
    """The worker does not have the flow."""


def flow_of_resolver(resolver, name):
    if resolver is None:
        raise FlowNotFound(f"no flow `{name}`: this worker was started without --flow-resolver")
    try:
        flow = resolver(name)
    except KeyError:
        flow = None
    if flow is None:
        raise FlowNotFound(f"the flow resolver of this worker has no flow `{name}`")
    if not hasattr(flow, "tasks") or not hasattr(flow, "name"):
        raise TypeError(f"the flow resolver returned {type(flow).__name__}, not a pyoco.Flow")
    return flow


def flow_of_document(text, flow_name):
    """The flow, and the defaults of its parameters."""
    from pyoco.discovery.loader import TaskLoader

    config = read_config(text)
    if config.flow is None:
        raise ValueError("the flow.yaml has no `flow`")
    loader = TaskLoader(config)
    heard = Heard(sys.stdout)
    try:
        with contextlib.redirect_stdout(heard):
            loader.load()
        flow = compile_graph(config, loader.tasks, flow_name)
    except Exception as error:
        complaints = heard.complaints()
        if not complaints:
            raise
        raise RuntimeError(f"{error} ({complaints})") from error
    return flow, dict(config.flow.defaults or {})


def read_config(text):
    from pyoco.schemas.config import PyocoConfig

    # pyoco reads files only; this one is gone with the process, however that ends.
    fd = os.memfd_create("flow.yaml")
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            return PyocoConfig.from_yaml(f"/proc/self/fd/{fd}")
        except TypeError as error:
            # An unknown key becomes an unexpected argument, which tells a user nothing.
            raise ValueError(f"this worker's pyoco cannot read the flow.yaml: {error}") from error


def compile_graph(config, tasks, flow_name):
    graph = sys.modules.get("pyoco.dsl.graph")
    if graph is not None:
        return graph.build_flow_from_graph(
            graph=config.flow.graph, tasks=tasks, pipes=config.pipes, flow_name=flow_name
        )
    # Before 0.8 a graph is Python: its names are the tasks, `flow` and `switch`.
    from pyoco.core.models import Flow
    from pyoco.dsl.syntax import TaskWrapper, switch

    flow = Flow(name=flow_name)
    for task in tasks.values():
        flow.add_task(task)
    names = {name: TaskWrapper(task) for name, task in tasks.items()}
    exec(config.flow.graph, {}, {**names, "switch": switch, "flow": flow})
    return flow


class Heard(io.TextIOBase):
    """Passes on what is printed and remembers it: the task loader prints its errors."""

    def __init__(self, stream):
        self.stream = stream
        self.text = ""

    def write(self, text):
        if len(self.text) < MAX_COMPLAINT_CHARS:
            self.text += text[:MAX_COMPLAINT_CHARS]
        return self.stream.write(text)

    def flush(self):
        self.stream.flush()

    def complaints(self):
        lines = self.text[:MAX_COMPLAINT_CHARS].splitlines()
        return "; ".join(line for line in lines if line.startswith(("Error", "Warning")))
