"""Wheels are uploaded, refused, used, shown as failed, and deleted; who has them is seen everywhere."""

import base64
import os
from pathlib import Path

from visitor import URL, call, eventually, expect, submit, visitor, wait_status

FILES = Path(os.environ["PYOCO_TEST_WHEELS"])
PHONE = {"width": 390, "height": 844}
NAMES = {version: f"textflows-{version}-py3-none-any.whl" for version in ("0.9", "1.0", "1.1", "1.2")}
DROP = """([name, text]) => {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name));
    for (const kind of ["dragover", "drop"]) {
        document.querySelector("h1").dispatchEvent(
            new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
    }
}"""


def upload(page, *names, tags="text"):
    page.set_input_files("#wheel-file", [str(FILES / name) for name in names])
    page.fill("#wheel-tags", tags)
    page.click(".upload button")


def result(page, name):
    return page.locator(f'[data-upload="{name}"]')


with visitor() as one:
    one.errors_expected = True
    page = one.page("#/wheels")
    row = lambda version: page.locator(f'[data-wheel="{NAMES[version]}"]')
    expect(page.locator("nav [aria-current]")).to_have_text("Wheels")
    expect(page.locator(".empty")).to_contain_text("pyoco-client wheel-upload")
    expect(page.locator(".history")).to_contain_text("Nothing was uploaded")
    expect(page.locator(".upload button")).to_be_disabled()

    # By the chooser. The worker takes it, and a run runs with it.
    upload(page, NAMES["1.0"])
    expect(result(page, NAMES["1.0"])).to_contain_text("Uploaded")
    expect(row("1.0").locator(".mark")).to_have_text("newest")
    expect(row("1.0").locator(".of-tags")).to_contain_text("text")
    expect(row("1.0").locator(".of-uploaded")).to_contain_text("from 127.0.0.1")
    expect(row("1.0").locator(".of-used")).to_contain_text("worker-1")
    expect(page.locator(".history tbody tr")).to_have_count(1)
    run_id = submit("text", "text", params={"text": "the cat and the caterpillar"})
    run = wait_status(run_id, "COMPLETED")
    (ran_with,) = run["wheels"]
    assert ran_with["wheel_name"] == NAMES["1.0"], run

    # Dropped anywhere on the page, sent by the keyboard.
    text = base64.b64encode((FILES / NAMES["1.1"]).read_bytes()).decode()
    page.evaluate(DROP, [NAMES["1.1"], text])
    expect(page.locator(".upload button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(row("1.1").locator(".of-used")).to_contain_text("worker-1")
    expect(row("1.1").locator(".mark")).to_have_text("newest")
    expect(row("1.0").locator(".mark")).to_have_text("older")
    expect(row("1.0").locator(".of-used")).to_have_text("–")
    page.select_option("#wheel-show", "newest")
    expect(page.locator(".wheels tbody tr")).to_have_count(1)
    page.select_option("#wheel-show", "")

    # What is refused says why, and what is beside it comes nevertheless.
    upload(page, NAMES["1.0"], "huge-1.0-py3-none-any.whl", "broken-1.0-py3-none-any.whl", NAMES["0.9"], "report_kit-2.4.0-py3-none-any.whl", tags="")
    refused = result(page, NAMES["1.0"])
    expect(refused).to_contain_text("409")
    expect(refused).to_contain_text("wheel version already exists; bump version")
    expect(refused).to_contain_text(f"the registry has {NAMES['1.0']}")
    expect(result(page, "huge-1.0-py3-none-any.whl")).to_contain_text("413. wheel too large")
    expect(result(page, "broken-1.0-py3-none-any.whl")).to_contain_text("422. invalid wheel file: it is not a zip archive")
    expect(result(page, NAMES["0.9"])).to_contain_text("wheel version must be greater than existing latest version")
    expect(result(page, "report_kit-2.4.0-py3-none-any.whl")).to_contain_text("Uploaded")
    kit = page.locator('[data-wheel="report_kit-2.4.0-py3-none-any.whl"]')
    expect(kit.locator(".of-tags")).to_have_text("all workers")
    upload(page, "speech-0.3-cp39-cp39-win_amd64.whl", tags="a b")
    expect(page.locator(".uploads")).to_contain_text("422. invalid wheel tags")
    assert len(call("GET", "/wheels")) == 3

    # What cannot be brought about here: a full store, and a connection that breaks.
    full = {"detail": "wheel store is full", "hint": "delete wheels that nobody needs"}
    sabotage = lambda how: lambda route: how(route) if route.request.method == "POST" else route.fallback()
    for how, words in [
        (lambda route: route.fulfill(status=507, json=full), ["507. wheel store is full", full["hint"]]),
        (lambda route: route.abort(), ["does not answer", "The upload broke off"]),
    ]:
        handler = sabotage(how)
        page.route("**/wheels", handler)
        upload(page, "speech-0.3-cp39-cp39-win_amd64.whl")
        for text in words:
            expect(page.locator(".uploads")).to_contain_text(text)
        page.unroute("**/wheels", handler)

    # One that is for other machines.
    upload(page, "speech-0.3-cp39-cp39-win_amd64.whl")
    skipped = page.locator('[data-wheel^="speech"] .of-used')
    expect(skipped).to_contain_text("1 cannot use it")
    skipped.locator("summary").click()
    expect(skipped).to_contain_text("unsupported_wheel_tags")

    # One that does not import fails on the worker, which keeps what it had.
    upload(page, NAMES["1.2"])
    expect(page.locator("#wheel-summary")).to_contain_text("Workers with failed wheels: 1")
    expect(row("1.2").locator(".of-used")).to_contain_text("no worker has it yet")
    expect(row("1.1").locator(".of-used")).to_contain_text("worker-1")
    phone = one.page(viewport=PHONE, has_touch=True, is_mobile=True)
    for address in ("#/wheels", "#/workers", f"#/run/{run_id}", "?lang=ja#/wheels", "?lang=ja#/workers"):
        phone.goto(f"{URL}/{address}")
        expect(phone.locator("h1")).to_be_visible()
        expect(phone.locator("main")).to_contain_text("textflows")
        width = phone.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"{address} is {width} wide"
    page.click("#wheel-summary a")
    card = page.locator('[data-worker="worker-1"]')
    expect(card.locator(".card-head")).to_contain_text("Wheels failed")
    expect(card.locator(".block.bad")).to_contain_text("ERR-PYOCO-0024")
    expect(card.locator(".block.bad")).to_contain_text("No module named 'not_there'")
    card.locator("summary", has_text="2 installed").click()
    expect(card).to_contain_text("textflows 1.1")
    card.locator("summary", has_text="1 cannot be used").click()
    expect(card).to_contain_text("unsupported_wheel_tags")
    generation = call("GET", "/workers")[0]["wheel_sync"]["generation"]
    expect(card.locator("code", has_text=generation)).to_have_count(1)

    # Deleted, after a second thought; then the worker is well.
    page.goto(f"{URL}/#/wheels?q=textflows")
    expect(page.locator(".wheels tbody tr")).to_have_count(3)
    row("1.2").locator("button").click()
    expect(page.locator("dialog")).to_contain_text("Workers that use it: 0")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    expect(row("1.2").locator("button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("dialog button", has_text="Keep it")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(row("1.2")).to_have_count(0)
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(".history tbody tr").first).to_contain_text("Deleted")
    expect(page.locator(".history tbody tr").first).to_contain_text(NAMES["1.2"])
    expect(page.locator("#wheel-summary .badge")).to_have_count(0)
    row("1.1").locator("button").click()
    expect(page.locator("dialog")).to_contain_text("New runs get version 1.0")
    # It goes behind the page's back: what the gateway says is shown, and the list is right.
    call("DELETE", f"/wheels/{NAMES['1.1']}")
    page.click("dialog .danger")
    expect(page.locator("dialog .problem")).to_contain_text("wheel not found")
    page.click("text=Keep it")
    expect(row("1.1")).to_have_count(0)
    expect(row("1.0").locator(".mark")).to_have_text("newest")
    expect(row("1.0").locator(".of-used")).to_contain_text("worker-1")
    page.goto(f"{URL}/#/workers")
    expect(card).to_contain_text("In sync")
    expect(card.locator(".wheels-failed")).to_have_count(0)

    # The run still says what it ran with.
    page.goto(f"{URL}/#/run/{run_id}")
    wheels = page.locator(".part-wheels")
    expect(wheels.locator(".generation")).to_have_text(run["wheel_generation"])
    expect(wheels).to_contain_text("textflows 1.0")
    expect(wheels).to_contain_text(ran_with["sha256"][:12])

    # In Japanese.
    page.goto(f"{URL}/?lang=ja#/wheels")
    expect(row("1.0").locator(".mark")).to_have_text("最新")
    expect(page.locator(".history h2, section h2").last).to_have_text("履歴")
    expect(page.locator(".history tbody")).to_contain_text("削除")
    page.goto(f"{URL}/?lang=ja#/workers")
    expect(card).to_contain_text("同期済み")
    page.goto(f"{URL}/?lang=ja#/run/{run_id}")
    expect(page.locator(".part-wheels")).to_contain_text("世代")

    # Without the list the history stands, and with NATS away it comes back by itself.
    page.context.route("**/wheels", lambda route: route.fulfill(status=503, json={"detail": "nats unavailable: gone"}))
    page.goto(f"{URL}/?lang=en#/wheels")
    expect(page.locator(".problem")).to_contain_text("nats unavailable: gone")
    page.context.unroute("**/wheels")
    expect(row("1.0")).to_have_count(1)
    expect(page.locator(".problem")).to_have_count(0)
    eventually("the registry is as the page says", lambda: len(call("GET", "/wheels")) == 3)
