"""Figures come by themselves; a part that fails leaves the others as they are."""

from visitor import URL, expect, flow, sleep, submit, submit_yaml, visitor, wait_status

with visitor() as one:
    page = one.page("#/metrics")
    tile = lambda name: page.locator(f'[data-tile="{name}"] b')
    expect(tile("workers")).to_have_text("1")
    expect(tile("done_today")).to_have_text("0")
    submit("parked", "nobody")
    for run_id in [submit_yaml(flow("a", a=sleep(0.1)), "good") for _ in range(3)]:
        wait_status(run_id, "COMPLETED")
    bad = submit_yaml(flow("a", a=("builtin/fail", {"message": "no"})), "bad")
    wait_status(bad, "FAILED")
    expect(tile("done_today")).to_have_text("3")
    expect(tile("failed_today")).to_have_text("1")
    expect(tile("waiting")).to_have_text("1")
    expect(page.locator('[data-tag="nobody"] td').first).to_have_text("1")
    expect(page.locator('[data-tag="nobody"]')).to_contain_text("pyoco-worker --tags nobody")
    expect(page.locator(".chart rect.is-completed")).not_to_have_count(0)
    expect(page.locator(".chart rect.is-failed")).to_have_count(1)
    expect(page.locator(".legend")).to_contain_text("4 in the last hour")
    page.reload()
    expect(page.locator(".legend")).to_contain_text("4 in the last hour")

    # Without figures the list goes on, and without the list the figures do.
    one.errors_expected = True
    page.context.route("**/metrics", lambda route: route.fulfill(status=500, json={"detail": "Internal Server Error"}))
    page.goto(f"{URL}/#/runs")
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(5)
    expect(page.locator('[data-status="FAILED"] b')).to_have_text("–")
    submit("parked", "nobody")
    expect(page.locator("tbody tr")).to_have_count(6)
    page.goto(f"{URL}/#/metrics")
    expect(page.locator(".problem")).to_contain_text("500")
    expect(page.locator(".legend")).to_contain_text("4 in the last hour")
    page.context.unroute("**/metrics")
    page.context.route("**/runs?*", lambda route: route.abort())
    page.goto(f"{URL}/#/runs")
    page.reload()
    expect(page.locator(".table-place .problem")).to_contain_text("does not answer")
    expect(page.locator('[data-status="PENDING"] b')).to_have_text("2")
    page.context.unroute("**/runs?*")
    page.click("text=Try again")
    expect(page.locator("tbody tr")).to_have_count(6)
