"""A visitor of the dashboard in a headless chromium, and what the scenarios do beside the page."""

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

URL = os.environ["PYOCO_TEST_URL"]
PATIENCE_MS = 30_000
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Whatever a page asks for beside us is not found.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
# What the browser itself says of an answer that is an error.
FAILED_ANSWER = "Failed to load resource"

expect.set_options(timeout=PATIENCE_MS)


class Visitor:
    """One browser, and everything that went wrong in it."""

    def __init__(self, browser):
        self.browser = browser
        self.faults = []
        # Scenarios that provoke errors of the gateway allow the browser to mention them.
        self.errors_expected = False

    def context(self, **options):
        options = {"viewport": {"width": 1280, "height": 860}, "locale": "en-GB", **options}
        context = self.browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.faults.append(f"page error: {error.error}"))
        context.on("request", self._request)
        return context

    def page(self, address="", **options):
        page = self.context(**options).new_page()
        page.goto(f"{URL}/{address}")
        return page

    def _console(self, message):
        if message.type not in ("error", "warning"):
            return
        if self.errors_expected and FAILED_ANSWER in message.text:
            return
        self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, request):
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.faults.append(f"a request to {request.url}")


@contextlib.contextmanager
def visitor():
    """A browser for one scenario; its faults fail it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ["PYOCO_TEST_CHROMIUM"], args=FLAGS
        )
        one = Visitor(browser)
        yield one
        browser.close()
        assert not one.faults, "\n".join(one.faults)


def call(method, path, body=None, headers=None):
    """One request to the gateway, past the page."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(URL + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def submit(flow_name="main", tag="default", **fields):
    body = {"flow_name": flow_name, "tag": tag, **fields}
    return call("POST", "/runs", body)["run_id"]


def submit_yaml(workflow, flow_name="main", tag="default"):
    """A run that brings its document along."""
    file = ("workflow", "flow.yaml", workflow.encode())
    return post_form("/runs/yaml", {"flow_name": flow_name, "tag": tag}, file)["run_id"]


def upload_wheel(path, tags=""):
    """A wheel past the page."""
    return post_form("/wheels", {"tags": tags}, ("wheel", path.name, path.read_bytes()))


def post_form(path, fields, file):
    """A form with a file, (field, name, bytes), behind its text fields."""
    boundary = "part-of-a-test"
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts.append((f'name="{file[0]}"; filename="{file[1]}"', file[2]))
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n" for head, value in parts
    )
    body += f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(URL + path, body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def eventually(what, probe, seconds=30):
    """Asks `probe` until it has an answer."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def wait_status(run_id, *wanted):
    def probe():
        run = call("GET", f"/runs/{run_id}")
        return run if run["status"] in wanted else None

    return eventually(f"run {run_id} is {wanted}", probe)


def flow(graph, **tasks):
    """A flow.yaml: each task is its `use` and its inputs."""
    text = f"version: 1\nflow:\n  graph: |\n    {graph}\ntasks:\n"
    for name, (use, inputs) in tasks.items():
        text += f"  {name}:\n    use: {use}\n    inputs: {json.dumps(inputs)}\n"
    return text


def sleep(seconds, **inputs):
    return ("builtin/sleep", {"seconds": seconds, **inputs})
