"""A run is followed live: its story, its bars, its tasks, its JSON."""

import json

from visitor import URL, call, expect, flow, sleep, submit, submit_yaml, visitor, wait_status

GRAPH = "load >> (left & right) >> report"
TASKS = {
    "load": ("builtin/echo", {"text": "読み込み"}),
    "left": sleep(5),
    "right": sleep(9),
    "report": ("builtin/echo", {"took": "$node.left.output.slept_sec"}),
}

with visitor() as one:
    # The page is there before the run is, so that nothing of it is missed.
    page = one.page()
    expect(page.locator(".empty")).to_have_count(1)
    run_id = submit_yaml(flow(GRAPH, **TASKS), "documents")
    page.click(f'tr[data-run="{run_id}"] .of-flow a')
    watches = []
    page.on("request", lambda request: watches.append(request.url))
    title = page.locator("h1 .badge")
    expect(title).to_contain_text("Running")
    expect(page.locator(".story")).to_contain_text("worker-1")
    expect(page.locator('[data-task="left"] .badge')).to_contain_text("Running")

    # Somebody reads the record of a task while the run goes on: it stays open.
    page.click('[data-task="load"] summary')
    expect(page.locator('[data-task="load"]')).to_contain_text("読み込み")
    expect(page.locator('[data-task="left"] .badge')).to_contain_text("Succeeded")
    expect(page.locator(".timeline rect.is-running")).to_have_count(1)
    expect(title).to_contain_text("Completed")
    assert page.locator('[data-task="load"]').get_attribute("open") is not None
    expect(page.locator(".timeline rect.is-succeeded")).to_have_count(4)
    expect(page.locator(".timeline rect.is-wait")).to_have_count(1)
    expect(page.locator(".story .step-completed")).to_contain_text("Completed")
    page.click('[data-task="report"] summary')
    expect(page.locator('[data-task="report"]')).to_contain_text('"took": 5')

    # Nothing was asked again and again: the stream has told all of it.
    polled = [url for url in watches if f"/runs/{run_id}" in url]
    assert len(polled) <= 1, polled

    page.click(".raw summary")
    shown = json.loads(page.locator(".raw pre").inner_text())
    real = call("GET", f"/runs/{run_id}?include=records")
    assert shown["task_records"] == real["task_records"]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=URL)
    page.click(".raw button")
    expect(page.locator(".raw button")).to_have_text("Copied")
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == shown

    # A run that nobody takes says what to start.
    waiting = submit("main", "nobody", params={"x": 1})
    page.goto(f"{URL}/#/run/{waiting}")
    expect(page.locator(".story code")).to_have_text("pyoco-worker --tags nobody")
    expect(page.locator(".part-data .block").first).to_contain_text('"x": 1')
    page.click("text=Submit again")
    expect(page.locator("#name-params")).to_have_value('{\n  "x": 1\n}')
    expect(page.locator("#name-tag")).to_have_value("nobody")

    # A run that is not there.
    one.errors_expected = True
    page.goto(f"{URL}/#/run/nowhere")
    expect(page.locator("h1")).to_have_text("Run not found")
    wait_status(run_id, "COMPLETED")
