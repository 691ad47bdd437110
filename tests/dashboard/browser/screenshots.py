"""Takes the pictures of the documentation, of runs in all states."""

import os
from pathlib import Path

from visitor import URL, call, eventually, expect, flow, sleep, submit, submit_yaml, upload_wheel, visitor, wait_status

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
DESK = {"width": 1200, "height": 760}
PHONE = {"width": 390, "height": 780}
WHEELS = Path(os.environ.get("PYOCO_TEST_WHEELS", "."))

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


def wheels():
    """Some that are in use, an older one, one that fits nobody, and one that was taken back."""
    for name, tags in [
        ("textflows-1.0-py3-none-any", "text"), ("report_kit-2.4.0-py3-none-any", ""), ("speech-0.3-cp39-cp39-win_amd64", "text"),
        ("textflows-1.1-py3-none-any", "text"), ("textflows-1.2-py3-none-any", "text"),
    ]:
        upload_wheel(WHEELS / f"{name}.whl", tags)
    call("DELETE", "/wheels/textflows-1.2-py3-none-any.whl")

    def in_sync():
        states = [one["wheel_sync"] for one in call("GET", "/workers") if one["worker_id"].startswith("text-")]
        return all(one["last_result"] == "ok" and len(one["installed_wheels"]) == 2 for one in states)

    eventually("all workers have their wheels", in_sync, 90)


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
    wheels()
    failed = past()
    running = present()
    shoot(one, "runs", "#/runs", "tbody tr")
    shoot(one, "failed", f"#/run/{failed}", ".errors", scheme="dark")
    shoot(one, "timeline", f"#/run/{running}", ".timeline rect.is-running")
    shoot(one, "workers", "#/workers", "article", viewport={"width": 1200, "height": 700}, scheme="dark")
    shoot(one, "wheels", "#/wheels", ".wheels .id", viewport={"width": 1200, "height": 960})
    shoot(one, "metrics", "#/metrics", ".chart rect")
    shoot(one, "phone", "#/runs", "tbody tr", viewport=PHONE, lang="ja")
