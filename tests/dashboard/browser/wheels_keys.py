"""A viewer sees the wheels and is told in words what it may not do; an operator's key stands beside its upload."""

import os
from pathlib import Path

from visitor import call, expect, visitor

FILE = Path(os.environ["PYOCO_TEST_WHEELS"]) / "textflows-1.0-py3-none-any.whl"
VIEWER = os.environ["PYOCO_TEST_VIEWER"]
OPERATOR = os.environ["PYOCO_TEST_OPERATOR"]


def use(page, key):
    page.click("#key-button")
    page.fill("#key-field", key)
    page.press("#key-field", "Enter")


def upload(page):
    page.set_input_files("#wheel-file", str(FILE))
    page.click(".upload button")


with visitor() as one:
    one.errors_expected = True
    page = one.page("#/runs")
    expect(page.locator(".notice.key")).to_have_count(1)
    page.fill("#key-field", VIEWER)
    page.press("#key-field", "Enter")
    expect(page.locator(".notice.key")).to_have_count(0)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/wheels/history" in request.url else None)
    page.click("nav >> text=Wheels")
    expect(page.locator(".empty").first).to_contain_text("pyoco-client wheel-upload")
    expect(page.locator(".empty").last).to_contain_text("pyoco-worker --tags default --wheel-sync")
    expect(page.locator(".history")).to_contain_text("the role of this API key may not read it")
    expect(page.locator(".history")).to_contain_text("role viewer may not")
    expect(page.locator(".problem")).to_have_count(0)
    upload(page)
    expect(page.locator(".uploads .problem")).to_contain_text("role viewer may not upload")
    # Nobody is asked for another key.
    expect(page.locator(".notice.key")).to_have_count(0)

    use(page, OPERATOR)
    expect(page.locator(".history")).to_contain_text("Nothing was uploaded")
    # What is not allowed is not asked for again and again.
    assert len(asked) <= 4, asked
    upload(page)
    row = page.locator(f'[data-wheel="{FILE.name}"]')
    expect(row).to_have_count(1)
    event = page.locator(".history tbody tr")
    expect(event).to_have_count(1)
    (known,) = call("GET", "/wheels/history", None, {"X-API-Key": OPERATOR})
    expect(event).to_contain_text(known["actor"]["api_key_id"][:8])
    expect(row.locator(".of-uploaded")).to_contain_text(known["actor"]["api_key_id"][:8])

    use(page, VIEWER)
    expect(page.locator(".history")).to_contain_text("role viewer may not")
    expect(row).to_have_count(1)
    row.locator("button").click()
    page.click("dialog .danger")
    expect(page.locator("dialog .problem")).to_contain_text("role viewer may not")
    assert len(call("GET", "/wheels", None, {"X-API-Key": VIEWER})) == 1
