"""A flow in Python: what its tasks printed, and the traceback of one that failed."""

from visitor import URL, expect, submit, visitor, wait_status

with visitor() as one:
    good = submit("text", params={"text": "one two two"})
    page = one.page(f"#/run/{good}")
    expect(page.locator("h1 .badge")).to_contain_text("Completed")
    page.click('[data-task="report"] summary')
    report = page.locator('[data-task="report"]')
    expect(report).to_contain_text("Printed (stdout)")
    expect(report).to_contain_text("3 words, 2 different ones")
    expect(report).to_contain_text("most common: two")

    bad = submit("text", params={"text": " "})
    wait_status(bad, "FAILED")
    page.goto(f"{URL}/#/run/{bad}")
    errors = page.locator(".errors")
    expect(errors.locator("h3")).to_have_text("Task words")
    expect(errors).to_contain_text("the text is empty")
    expect(errors).to_contain_text("Traceback")
    expect(errors).to_contain_text("raise ValueError")

    page.goto(f"{URL}/#/workers")
    expect(page.locator('[data-worker="worker-1"]')).to_contain_text("pyoco 0.8.0")
