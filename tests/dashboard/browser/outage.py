"""NATS goes and comes back, then the gateway: the page says so, and goes on by itself."""

from urllib.error import HTTPError

from visitor import call, eventually, expect, submit, visitor


def accepted():
    """A submit; the gateway may be without NATS a little longer than its view of it."""
    try:
        return submit("after", "nobody")
    except HTTPError as error:
        assert error.code == 503, error
        return None



with visitor() as one:
    one.errors_expected = True
    submit("before", "nobody")
    page = one.page()
    page.evaluate("window.stillTheSamePage = true")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("#connection")).to_have_count(0)

    print("stop nats", flush=True)
    expect(page.locator("#connection")).to_contain_text("lost NATS")
    # What was there stays to be read.
    expect(page.locator("tbody tr")).to_have_count(1)
    # A list that is asked for now cannot be had, and says so.
    page.click("nav >> text=Workers")
    expect(page.locator("h1")).to_have_text("Workers")
    page.click("nav >> text=Runs")
    expect(page.locator(".table-place .problem")).to_contain_text("nats unavailable")

    print("start nats", flush=True)
    expect(page.locator("#connection")).to_have_count(0)
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator(".problem")).to_have_count(0)
    eventually("a submit is taken", accepted)
    expect(page.locator("tbody tr")).to_have_count(2)

    print("stop gateway", flush=True)
    expect(page.locator("#connection")).to_contain_text("No connection to the gateway")
    print("start gateway", flush=True)
    expect(page.locator("#connection")).to_have_count(0)
    submit("again", "nobody")
    expect(page.locator("tbody tr")).to_have_count(3)
    assert page.evaluate("window.stillTheSamePage") is True
    assert len(call("GET", "/runs")) == 3
