"""The list fills by itself, is filtered and sorted by the URL, and leads to a run."""

from visitor import expect, flow, submit, submit_yaml, visitor, wait_status

HOSTILE = "<b>bold</b><img src=x onerror=alert(1)> & done"

with visitor() as one:
    page = one.page()
    # An empty list says what to do.
    expect(page.locator(".empty code").first).to_contain_text("pyoco-server up")

    # Runs appear without a reload, and so do the counters.
    failed = submit_yaml(flow("broken", broken=("builtin/fail", {"message": HOSTILE})), "bad-flow")
    waiting = [submit("parked", "nobody", tags=["team-a"]) for _ in range(3)]
    expect(page.locator("tbody tr")).to_have_count(4)
    row = page.locator(f'tr[data-run="{failed}"]')
    expect(row.locator(".badge")).to_contain_text("Failed")
    expect(page.locator('[data-status="PENDING"] b')).to_have_text("3")
    expect(page.locator('[data-status="FAILED"] b')).to_have_text("1")

    # What runs say is text.
    expect(row.locator(".error-line")).to_have_text(HOSTILE)
    assert page.locator("td b, td img").count() == 0

    # Filters stand in the URL, work on what comes later, and survive a reload.
    page.click('[data-status="PENDING"]')
    expect(page.locator("tbody tr")).to_have_count(3)
    assert "status=PENDING" in page.url
    waiting.append(submit("parked", "nobody"))
    expect(page.locator("tbody tr")).to_have_count(4)
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(4)
    page.click("text=Clear filters")
    expect(page.locator("tbody tr")).to_have_count(5)
    page.fill("#filter-q", "BOLD")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.fill("#filter-q", "team-a")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.fill("#filter-q", "")
    page.fill("#filter-worker", "worker-1")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.fill("#filter-worker", "")
    page.fill("#filter-flow", "parked")
    page.select_option("#filter-since", "15m")
    expect(page.locator("tbody tr")).to_have_count(4)
    assert "flow=parked" in page.url and "since=15m" in page.url
    page.fill("#filter-flow", "nowhere")
    expect(page.locator(".empty")).to_contain_text("No run matches")
    page.click(".empty >> text=Clear filters")
    expect(page.locator("tbody tr")).to_have_count(5)

    # Sorted by the flow's name.
    page.click("th.of-flow a")
    expect(page.locator("tbody tr").first).to_have_attribute("data-run", failed)
    expect(page.locator("th.of-flow")).to_have_attribute("aria-sort", "ascending")
    page.click("th.of-flow a")
    expect(page.locator("tbody tr").last).to_have_attribute("data-run", failed)

    # Pages of fifty.
    for _ in range(60):
        submit("parked", "nobody")
    page.goto(page.url.split("#")[0] + "#/runs")
    expect(page.locator('[data-status="PENDING"] b')).to_have_text("64")
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(50)
    first = page.locator("tbody tr").first.get_attribute("data-run")
    page.click("#next-page")
    expect(page.locator("tbody tr")).to_have_count(15)
    assert page.locator(f'tr[data-run="{first}"]').count() == 0
    page.go_back()
    expect(page.locator(f'tr[data-run="{first}"]')).to_have_count(1)

    # The run itself: the error comes first, and is text there, too.
    page.fill("#filter-q", failed)
    page.click(f'tr[data-run="{failed}"] .of-flow a')
    expect(page.locator(".errors .block").first).to_have_text(HOSTILE)
    assert page.locator(".view img, .block b").count() == 0
    assert page.locator(".part:not(:empty)").nth(1).locator(".errors").count() == 1
    wait_status(failed, "FAILED")
