"""One failed run among many: two clicks from the list to its error."""

from concurrent.futures import ThreadPoolExecutor

from visitor import call, expect, submit, visitor, wait_status

MANY = 400

with ThreadPoolExecutor(8) as pool:
    ids = list(pool.map(lambda _: submit("parked", "nobody"), range(MANY)))

# A run without a worker ends as CANCELLED: the one that is not like the others.
needle = ids[MANY // 3]
call("POST", f"/runs/{needle}/cancel", {"reason": "not needed"})
wait_status(needle, "CANCELLED")
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda _: submit("parked", "nobody"), range(100)))

with visitor() as one:
    page = one.page()
    expect(page.locator("tbody tr")).to_have_count(50)
    expect(page.locator('[data-status="CANCELLED"] b')).to_have_text("1")
    assert page.locator(f'tr[data-run="{needle}"]').count() == 0
    page.click('[data-status="CANCELLED"]')
    page.click("tbody tr .of-flow a")
    expect(page.locator(".ids code")).to_have_text(needle)
    expect(page.locator(".story")).to_contain_text("not needed")
