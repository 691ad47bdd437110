"""A gateway that asks for keys: the page asks the visitor, and a viewer's key is left alone."""

import os

from visitor import call, expect, visitor

VIEWER = os.environ["PYOCO_TEST_VIEWER"]
OPERATOR = os.environ["PYOCO_TEST_OPERATOR"]

with visitor() as one:
    one.errors_expected = True
    body = {"flow_name": "main", "tag": "nobody"}
    run_id = call("POST", "/runs", body, {"X-API-Key": OPERATOR})["run_id"]
    page = one.page()
    expect(page.locator(".notice.key [role=alert]")).to_contain_text("asks for an API key")
    page.fill("#key-field", VIEWER[:-1] + "!")
    page.press("#key-field", "Enter")
    expect(page.locator(".notice.key [role=alert]")).to_contain_text("does not take")
    page.fill("#key-field", VIEWER)
    page.press("#key-field", "Enter")
    expect(page.locator("tbody tr")).to_have_count(1)

    # Who may only look is told so, and is not asked for another key.
    page.goto(page.url.split("#")[0] + f"#/run/{run_id}")
    page.click(".cancel summary")
    page.fill("#cancel-reason", "not mine to end")
    page.click("text=Cancel the run")
    expect(page.locator("main")).to_contain_text("role viewer may not cancel runs")
    expect(page.locator(".notice.key")).to_have_count(0)
    assert call("GET", f"/runs/{run_id}", None, {"X-API-Key": VIEWER})["status"] == "PENDING"

    # What changes comes over a stream that carries the key, too.
    call("POST", f"/runs/{run_id}/cancel", {}, {"X-API-Key": OPERATOR})
    expect(page.locator("h1 .badge")).to_contain_text("Cancel")
