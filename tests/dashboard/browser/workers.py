"""A worker is seen at work, hidden and shown again, and seen to stop."""

from visitor import call, expect, flow, sleep, submit_yaml, visitor, wait_status

with visitor() as one:
    page = one.page("#/workers")
    card = page.locator('[data-worker="worker-1"]')
    expect(card.locator(".card-head .badge")).to_contain_text("Idle")
    expect(card).to_contain_text("gpu")
    run_id = submit_yaml(flow("a", a=sleep(3)), "held", "gpu")
    expect(card.locator(".card-head .badge")).to_contain_text("Running")
    expect(card.locator(f'a[title="{run_id}"]')).to_have_count(1)
    expect(card).to_contain_text("1/2")
    wait_status(run_id, "COMPLETED")
    expect(card.locator(".card-head .badge")).to_contain_text("Idle")
    expect(card).to_contain_text("Completed")

    card.locator("button", has_text="Hide").click()
    expect(card).to_have_count(0)
    expect(page.locator("#worker-summary")).to_contain_text("1 hidden")
    assert call("GET", "/workers") == []
    # A link to it finds it all the same.
    page.fill("#worker-q", "worker-1")
    expect(card).to_have_count(1)
    page.fill("#worker-q", "")
    expect(card).to_have_count(0)
    page.select_option("#worker-show", "hidden")
    expect(card).to_have_count(1)
    page.reload()
    expect(card).to_have_count(1)
    card.locator("button", has_text="Show again").click()
    expect(card).to_have_count(0)
    page.select_option("#worker-show", "")
    expect(card).to_have_count(1)
    assert len(call("GET", "/workers")) == 1

    print("stop worker", flush=True)
    expect(card.locator(".card-head .badge")).to_contain_text("Stopped")
    page.select_option("#worker-show", "alive")
    expect(page.locator(".empty")).to_contain_text("No worker matches")
