"""Everything can be done with the keyboard, and nothing is wider than a phone."""

from visitor import URL, expect, flow, sleep, submit, submit_yaml, visitor, wait_status

PHONE = {"width": 390, "height": 844}

with visitor() as one:
    long = "a-flow-with-a-name-that-is-longer-than-any-phone-is-wide-" * 3
    failed = submit_yaml(flow("boom", boom=("builtin/fail", {"message": "x" * 400})), long)
    running = submit_yaml(flow("a >> b", a=sleep(60), b=sleep(1)), "held")
    submit("parked", "nobody")
    wait_status(failed, "FAILED")

    page = one.page()
    expect(page.locator("tbody tr")).to_have_count(3)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#filter-q")).to_be_focused()
    page.keyboard.type("held")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("#filter-q")).to_be_focused()

    def tab_to(selector):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("td.of-flow a")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("held")
    tab_to(".cancel summary")
    page.keyboard.press("Enter")
    tab_to("#cancel-reason")
    page.keyboard.type("by hand")
    # Snapshots come all the time; the field keeps what is typed, and the focus.
    page.wait_for_timeout(2500)
    expect(page.locator("#cancel-reason")).to_be_focused()
    expect(page.locator("#cancel-reason")).to_have_value("by hand")
    page.keyboard.press("Enter")
    expect(page.locator("h1 .badge")).to_contain_text("Cancelled")

    phone = one.page(viewport=PHONE, has_touch=True, is_mobile=True)
    for address in ("#/runs", f"#/run/{failed}", f"#/run/{running}", "#/workers", "#/wheels", "#/metrics", "#/submit"):
        phone.goto(f"{URL}/{address}")
        expect(phone.locator("h1")).to_be_visible()
        expect(phone.locator("text=Loading…")).to_have_count(0)
        width = phone.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"{address} is {width} wide"

    # The filters are folded up there, but for the search.
    phone.goto(f"{URL}/#/runs")
    expect(phone.locator("#filter-tag")).to_be_hidden()
    phone.tap(".filters .more")
    phone.fill("#filter-tag", "nobody")
    expect(phone.locator("tbody tr")).to_have_count(1)

    # Fields and buttons have names.
    for address in ("#/runs", f"#/run/{failed}", "#/workers", "#/wheels", "#/metrics", "#/submit"):
        page.goto(f"{URL}/{address}")
        expect(page.locator("h1")).to_be_visible()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("input, select, textarea, button, a")].filter((one) =>
                !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim())).map((one) => one.outerHTML)"""
        )
        assert nameless == [], nameless
