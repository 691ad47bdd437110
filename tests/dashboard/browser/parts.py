"""Modules of the page by themselves: events in pieces, figures, spans of time, lists that move, odd data and odd addresses."""

import json

from visitor import URL, expect, visitor

EVENTS = """async () => {
    const { parser } = await import("/static/stream.js");
    const text = 'retry: 2000\\n\\n: a comment\\n\\nevent: run\\nid: 7\\ndata: {"a":"x: y"}\\n\\nevent: heartbeat\\ndata: {}\\n\\n';
    const results = [];
    for (let size = 1; size < 12; size += 1) {
        const events = [];
        const parse = parser((event) => events.push(event));
        for (let at = 0; at < text.length; at += size) parse(text.slice(at, at + size));
        results.push(JSON.stringify(events));
    }
    return [...new Set(results)];
}"""

FIGURES = """async () => {
    const { parse } = await import("/static/figures.js");
    const figures = parse([
        "# HELP a b", "# TYPE a gauge", "a 1.5", 'b{tag="x y",odd="q\\\\"}\\\\\\\\n"} 2e3', 'b{tag="z"} NaN', "",
    ].join("\\n"));
    return [figures.one("a"), figures.one("b", { tag: "x y" }), figures.one("b", { tag: "no" }), figures.one("c"),
        figures.all("b")[0].labels.odd];
}"""

SPANS = """async () => {
    const { span } = await import("/static/format.js");
    return [0, 0.0001, 0.0123, 0.9996, 1.25, 9.96, 59.4, 61, 3599.7, 7260, 90000, -5].map(span);
}"""

KEYED = """async () => {
    const { el, keyed } = await import("/static/dom.js");
    const list = el("ul");
    document.getElementById("main").append(list);
    let drawn = 0;
    const draw = (one) => (drawn += 1, el("li", {}, el("button", {}, one.id + one.text)));
    const show = (...items) => {
        keyed(list, items.map(([id, text]) => ({ id, text })), (one) => one.id, draw);
        return [...list.children].map((one) => one.textContent).join(" ");
    };
    const results = [show(["a", 1], ["b", 1], ["c", 1])];
    const second = list.children[1].firstChild;
    second.focus();
    results.push(show(["b", 1], ["a", 1], ["d", 1]));
    results.push(document.activeElement === second, drawn);
    results.push(show(["d", 1], ["b", 2]));
    // Drawn anew, and still where the visitor is.
    results.push(document.activeElement.textContent, drawn, show());
    list.remove();
    return results;
}"""

LISTED = """async () => {
    const { MOST_MOVED, RunsList } = await import("/static/runs_list.js");
    const limits = { status: "", q: "", flow: "", tag: "", worker: "", span: null, cursor: "" };
    const run = (id, status, updated_at) => ({ run_id: id, flow_name: "f", tag: "t", tags: [], status, updated_at });
    const list = (cursor) => Object.assign(new RunsList({ ...limits, cursor }, () => {}), { isLoaded: true });
    const first = list("");
    // The worker's clock is behind the gateway's.
    first.put(run("a", "PENDING", 100));
    first.put(run("a", "COMPLETED", 70));
    const later = list("x");
    for (let n = 0; n < 3 * MOST_MOVED; n += 1) later.put(run(`r${n}`, "RUNNING", n));
    first.close();
    later.close();
    return [first.runs[0].status, later.changesBefore === MOST_MOVED];
}"""

TIMES = """async () => {
    const { moment } = await import("/static/format.js");
    const { when } = await import("/static/moving.js");
    return [1e300, -1e300, NaN, null].flatMap((time) => [when(time).textContent, moment(time)]).join("");
}"""


def snapshot(status, updated_at):
    run = {"run_id": "skew", "flow_name": "skewed", "tag": "t", "tags": [], "status": status, "updated_at": updated_at}
    data = json.dumps({"run_id": "skew", "snapshot": {**run, "tasks": {}, "task_records": {}}, "ts": 1})
    return f"event: snapshot\nid: {updated_at}\ndata: {data}\n\n"


with visitor() as one:
    page = one.page("#/submit")
    expect(page.locator("h1")).to_have_text("Submit")
    (events,) = page.evaluate(EVENTS)
    assert events == '[{"name":"run","id":"7","data":{"a":"x: y"}},{"name":"heartbeat","data":{}}]', events
    figures = page.evaluate(FIGURES)
    assert figures == [1.5, 2000, None, None, 'q"}\\n'], figures
    spans = page.evaluate(SPANS)
    expected = ["0 ms", "<1 ms", "12 ms", "1 s", "1.3 s", "10 s", "59 s", "1 min 1 s", "1 h 0 min", "2 h 1 min", "1 d 1 h", "0 ms"]
    assert spans == expected, spans
    keyed = page.evaluate(KEYED)
    assert keyed == ["a1 b1 c1", "b1 a1 d1", True, 4, "d1 b2", "b2", 5, ""], keyed
    assert page.evaluate(LISTED) == ["COMPLETED", True]
    assert page.evaluate(TIMES) == "–" * 8

    # Names that every object of JavaScript has are no views, columns or languages.
    page.goto(f"{URL}/?lang=constructor#/runs?sort=constructor&since=constructor")
    expect(page.locator("h1")).to_have_text("Runs")
    expect(page.locator(".empty")).to_have_count(1)
    page.goto(f"{URL}/#/constructor")
    expect(page.locator("h1")).to_have_text("There is no such page")
    page.goto(f"{URL}/#/workers")
    expect(page.locator("h1")).to_have_text("Workers")

    # A run whose worker's clock is behind that of the gateway.
    body = snapshot("PENDING", 100) + snapshot("COMPLETED", 70)
    page.route("**/runs/skew/watch*", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.goto(f"{URL}/#/run/skew")
    expect(page.locator("h1 .badge")).to_contain_text("Completed")
