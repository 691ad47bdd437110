"""Takes the pictures of the documentation, of runs in all states."""

from pathlib import Path

from visitor import URL, call, expect, flow, sleep, submit, submit_yaml, visitor, wait_status

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
DESK = {"width": 1200, "height": 760}
PHONE = {"width": 390, "height": 780}

IMAGES_FLOW = flow(
    "load >> (resize & translate & ocr) >> index >> publish",
    load=sleep(1.2), resize=sleep(3), translate=sleep(45), ocr=sleep(2), index=sleep(1), publish=sleep(1),
)
IMPORT = flow("fetch >> (clean & enrich) >> store", fetch=sleep(0.4), clean=sleep(0.3), enrich=sleep(0.2), store=("builtin/echo", {}))
REFUSED = flow("fetch >> check >> store", fetch=sleep(0.3), check=("builtin/fail", {"message": "row 4711 has no customer number"}), store=("builtin/echo", {}))
STUBBORN = flow("upload", upload=sleep(50, ignore_cancel=True))


def past():
    """Runs that have ended."""
    runs = []
    for n in range(14):
        runs.append(submit_yaml(IMPORT, "import-customers", "gpu" if n % 3 else "batch"))
        runs.append(submit("text", params={"text": "the quick brown fox"}, tags=["team-a"]))
        if n % 5 == 1:
            runs.append(submit_yaml(REFUSED, "import-orders", "batch"))
    failed = submit("text", params={"text": " "}, tags=["team-b"])
    for run_id in [*runs, failed]:
        wait_status(run_id, "COMPLETED", "FAILED")
    return failed


def present():
    """Runs that wait, run, and are being cancelled."""
    for name in ("train-model", "render-video", "train-model"):
        submit(name, "large", tags=["night"])
    dropped = submit("render-video", "large")
    call("POST", f"/runs/{dropped}/cancel", {"reason": "submitted twice"})
    wait_status(dropped, "CANCELLED")
    running = submit_yaml(IMAGES_FLOW, "documents", "batch")
    stubborn = submit_yaml(STUBBORN, "backup", "gpu")
    wait_status(stubborn, "RUNNING")
    call("POST", f"/runs/{stubborn}/cancel", {"reason": "disk full"})
    return running


def shoot(one, name, address, ready, viewport=DESK, scheme="light", lang="en", before=None):
    page = one.page(f"?lang={lang}{address}", viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator(ready).first).to_be_visible()
    expect(page.locator(".counters b", has_text="–")).to_have_count(0)
    if before:
        before(page)
    # Figures, and the state of the worker, come a moment after the list.
    page.wait_for_timeout(700)
    page.screenshot(path=IMAGES / f"{name}.png")
    page.context.close()


with visitor() as one:
    IMAGES.mkdir(exist_ok=True)
    failed = past()
    running = present()
    shoot(one, "runs", "#/runs", "tbody tr")
    shoot(one, "failed", f"#/run/{failed}", ".errors", scheme="dark")
    shoot(one, "timeline", f"#/run/{running}", ".timeline rect.is-running")
    shoot(one, "workers", "#/workers", "article", viewport={"width": 1200, "height": 520}, scheme="dark")
    shoot(one, "metrics", "#/metrics", ".chart rect")
    shoot(one, "phone", "#/runs", "tbody tr", viewport=PHONE, lang="ja")
