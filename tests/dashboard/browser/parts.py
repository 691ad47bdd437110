"""Modules of the page by themselves: events in pieces, figures, spans of time, lists that move."""

from visitor import expect, visitor

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
