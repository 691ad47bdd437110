//! The page for people, and its files.

use serde_json::{Value, json};

use super::operation::{Operation, operation};
use super::shape::usual_word;

const TAG: &str = "dashboard";

pub(super) fn operations() -> Vec<Operation> {
    let text = || json!({"schema": {"type": "string"}});
    let page = json!({"text/html; charset=utf-8": text()});
    let file = json!({
        "text/css; charset=utf-8": text(),
        "text/javascript; charset=utf-8": text(),
        "image/svg+xml": text(),
    });
    vec![
        kept(operation("GET", "/", "getDashboard", TAG), page)
            .says("The dashboard", "A page without data: it asks the other routes.")
            .query("lang", usual_word("Its language; else the one that is set", &["ja", "en"])),
        kept(operation("GET", "/static/{name}", "getDashboardFile", TAG), file)
            .says("A file that the dashboard loads", "")
            .segment("name", "The file")
            .fails(&[404]),
    ]
}

fn kept(operation: Operation, content: Value) -> Operation {
    let policy = json!({
        "description": "What the browser lets the page do.",
        "schema": {"type": "string"},
    });
    operation
        .answers(200, "As it is in this version.", content)
        .with_header(200, "Content-Security-Policy", policy)
        .may_be_kept()
}
