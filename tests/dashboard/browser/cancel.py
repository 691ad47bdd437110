"""A running run is cancelled with a reason: CANCELLING, then CANCELLED, live."""

from visitor import URL, expect, flow, sleep, submit_yaml, visitor, wait_status

# It takes no notice of a cancel for a while, so that there is something to see.
STUBBORN = flow("stubborn", stubborn=sleep(4, ignore_cancel=True))
QUICK = flow("patient >> never", patient=sleep(60), never=sleep(60))

with visitor() as one:
    run_id = submit_yaml(QUICK, "quick")
    page = one.page(f"#/run/{run_id}")
    expect(page.locator("h1 .badge")).to_contain_text("Running")
    page.click(".cancel summary")
    page.fill("#cancel-reason", "wrong <input>")
    page.click("text=Cancel the run")
    expect(page.locator("h1 .badge")).to_contain_text("Cancelled")
    expect(page.locator(".story q")).to_have_text("wrong <input>")
    expect(page.locator(".story")).to_contain_text("after the cancel was requested")
    expect(page.locator(".cancel")).to_have_count(0)
    expect(page.locator('[data-task="never"] .badge')).to_contain_text("Cancelled")
    assert wait_status(run_id, "CANCELLED")["cancel_reason"] == "wrong <input>"

    # One that does what it began shows how long it may go on, and that the cancel came too late.
    run_id = submit_yaml(STUBBORN, "stubborn")
    page.goto(f"{URL}/#/run/{run_id}")
    expect(page.locator("h1 .badge")).to_contain_text("Running")
    page.click(".cancel summary")
    page.click("text=Cancel the run")
    expect(page.locator("h1 .badge")).to_contain_text("Cancelling")
    expect(page.locator(".story")).to_contain_text("Force is used in")
    ended = wait_status(run_id, "CANCELLED", "COMPLETED")["status"]
    expect(page.locator("h1 .badge")).to_contain_text(ended.capitalize())
