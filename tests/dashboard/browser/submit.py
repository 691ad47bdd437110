"""Both forms: what the gateway refuses stands at its field, what it takes leads to the run."""

from pathlib import Path
from tempfile import TemporaryDirectory

from visitor import URL, expect, flow, sleep, visitor, wait_status


def run_id(page):
    page.wait_for_url("**/#/run/*")
    return page.url.rsplit("/", 1)[1]


with visitor() as one:
    one.errors_expected = True
    page = one.page("#/submit")

    # By name.
    form = page.locator("#submit-name")
    page.fill("#name-tag", "a.b")
    page.fill("#name-flow_name", "")
    form.locator("button").click()
    expect(page.locator("#name-tag-error")).to_contain_text("pattern")
    expect(page.locator("#name-flow_name-error")).not_to_be_empty()
    expect(page.locator("#name-flow_name")).to_be_focused()
    assert page.locator("#name-tag").get_attribute("aria-invalid") == "true"
    page.fill("#name-tag", "nobody")
    page.fill("#name-flow_name", "nightly")
    page.fill("#name-params", "{x: 1}")
    form.locator("button").click()
    expect(page.locator("#name-params-error")).to_contain_text("not JSON")
    expect(page.locator("#name-tag-error")).to_be_empty()
    page.fill("#name-params", "[1]")
    form.locator("button").click()
    expect(page.locator("#name-params-error")).to_contain_text("dictionary")
    page.fill("#name-params", '{"x": 1}')
    page.fill("#name-tags", "team-a, urgent")
    form.locator("button").click()
    run = wait_status(run_id(page), "PENDING")
    assert (run["params"], run["tags"], run["tag"]) == ({"x": 1}, ["team-a", "urgent"], "nobody")

    # With a document.
    page.goto(f"{URL}/#/submit")
    form = page.locator("#submit-yaml")
    page.fill("#yaml-workflow", "flow: [")
    form.locator("button").click()
    expect(page.locator("#yaml-workflow-error")).to_contain_text("invalid_yaml")
    expect(page.locator("#yaml-workflow")).to_be_focused()
    page.fill("#yaml-workflow", "tasks: {}")
    form.locator("button").click()
    expect(page.locator("#yaml-workflow-error")).to_contain_text("missing_flow")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "flow.yaml"
        path.write_text(flow("one", one=sleep(0.1)))
        page.set_input_files("#yaml-file", str(path))
        expect(page.locator("#yaml-workflow")).to_have_value(path.read_text())
    page.fill("#yaml-tag", "no.such")
    form.locator("button").click()
    expect(page.locator("#yaml-tag-error")).to_contain_text("invalid tag")
    page.fill("#yaml-tag", "")
    page.fill("#yaml-flow_name", "from-the-page")
    form.locator("button").click()
    run = wait_status(run_id(page), "COMPLETED")
    assert run["flow_name"] == "from-the-page"
    expect(page.locator("h1 .badge")).to_contain_text("Completed")

    # The example that stands there at first is one that works.
    page.goto(f"{URL}/#/submit")
    page.locator("#submit-yaml button").click()
    wait_status(run_id(page), "COMPLETED")
