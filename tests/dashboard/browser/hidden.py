"""A tab in the background closes its stream, and catches up when it is looked at again."""

import urllib.request

from visitor import URL, eventually, expect, submit, visitor

HIDE = """hidden => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def streams():
    with urllib.request.urlopen(f"{URL}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    line = next(line for line in text.splitlines() if line.startswith("pyoco_sse_clients "))
    return float(line.split()[1])


with visitor() as one:
    page = one.page()
    expect(page.locator(".empty")).to_have_count(1)
    assert streams() == 1
    # A short look elsewhere changes nothing.
    page.evaluate(HIDE, True)
    page.evaluate(HIDE, False)
    submit("first", "nobody")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.evaluate(HIDE, True)
    eventually("the stream is closed", lambda: streams() == 0)
    submit("meanwhile", "nobody")
    page.evaluate(HIDE, False)
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("#connection")).to_have_count(0)
    assert streams() == 1
