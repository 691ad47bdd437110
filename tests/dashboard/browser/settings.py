"""Language and colours are remembered; the key is in this tab's session storage and nowhere else."""

import re

from visitor import URL, expect, submit, visitor

KEY = "pyoco_0123456789abcdef.secret-of-the-test-0000"

with visitor() as one:
    submit("parked", "nobody")
    page = one.page()
    expect(page.locator("h1")).to_have_text("Runs")
    page.select_option("#language", "ja")
    expect(page.locator("h1")).to_have_text("ラン")
    expect(page.locator("tbody .badge")).to_contain_text("待機中")
    assert page.evaluate("document.documentElement.lang") == "ja"
    page.reload()
    expect(page.locator("h1")).to_have_text("ラン")
    # The address says more than what was chosen before.
    page.goto(f"{URL}/?lang=en#/workers")
    expect(page.locator("h1")).to_have_text("Workers")
    page.goto(f"{URL}/?lang=ja#/workers")
    expect(page.locator("h1")).to_have_text("ワーカー")
    page.select_option("#language", "en")
    expect(page.locator("h1")).to_have_text("Workers")
    assert "lang=en" in page.url

    # Dark and light, by the system and by choice.
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.select_option("#theme", "light")
    assert page.evaluate(ground) == light
    page.reload()
    expect(page.locator("h1")).to_have_text("Workers")
    assert page.evaluate(ground) == light
    page.select_option("#theme", "auto")
    assert page.evaluate(ground) == dark

    # A proxy in front asks for a key: the page asks the visitor.
    one.errors_expected = True
    guarded = []

    def guard(route, request):
        guarded.append(request.headers.get("x-api-key"))
        if request.headers.get("x-api-key") == KEY:
            route.continue_()
        else:
            status = 403 if "x-api-key" in request.headers else 401
            route.fulfill(status=status, json={"detail": "api key required"})

    page.context.route(re.compile(r":\d+/(runs|workers|events|metrics)(\?|$)"), guard)
    page.goto(f"{URL}/?lang=en#/runs")
    page.reload()
    expect(page.locator(".notice.key [role=alert]")).to_contain_text("asks for an API key")
    page.fill("#key-field", "pyoco_wrong.key")
    page.click("text=Use")
    expect(page.locator(".notice.key [role=alert]")).to_contain_text("does not take")
    page.fill("#key-field", KEY)
    page.press("#key-field", "Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator(".notice.key")).to_have_count(0)
    assert KEY in guarded

    # It outlives a reload, and is in no other place and no other tab.
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert KEY in page.evaluate("JSON.stringify(sessionStorage)")
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")
    assert page.context.cookies() == [] and KEY not in page.url
    other = page.context.new_page()
    other.goto(f"{URL}/#/runs")
    expect(other.locator(".notice.key")).to_have_count(1)
    assert other.evaluate("sessionStorage.length") == 0
    page.click("#key-button")
    page.click("text=Forget")
    expect(page.locator(".notice.key [role=alert]")).to_contain_text("asks for an API key")
    assert page.evaluate("sessionStorage.length") == 0
