//! Probes, metrics and the document itself.

use serde_json::{Value, json};

use super::operation::{Operation, json_of, operation};
use super::shape::{count, object, or_null, reference, text, word};

const TAG: &str = "service";

pub(super) fn operations() -> Vec<Operation> {
    let alive = |path, id| {
        operation("GET", path, id, TAG).says("Alive", "Without looking at anything else.").answers(
            200,
            "The process answers.",
            json_of("Alive", json!({"status": "ok"})),
        )
    };
    vec![
        alive("/health", "getHealth"),
        alive("/healthz", "getHealthz"),
        alive("/livez", "getLivez"),
        operation("GET", "/readyz", "getReadiness", TAG)
            .says(
                "Fit to serve",
                "NATS is connected and takes writes, what is used there is our own, and the run index is current.",
            )
            .answers(200, "Ready.", json_of("Readiness", readiness_example()))
            .answers(503, "Not ready, or the gateway takes no more connections.", unready()),
        operation("GET", "/metrics", "getMetrics", TAG)
            .says("Figures for Prometheus", "docs/operations.md lists them. Always 200, also while NATS is away.")
            .answers(200, "Text exposition format.", json!({"text/plain; version=0.0.4": {
                "schema": {"type": "string"},
                "example": "# HELP pyoco_runs_total Runs by status.\n# TYPE pyoco_runs_total gauge\npyoco_runs_total{status=\"PENDING\"} 0\n",
            }})),
        operation("GET", "/openapi.json", "getOpenapi", TAG)
            .says("This document", "Made once per process.")
            .answers(200, "The document.", json!({"application/json": {"schema": {"type": "object"}}}))
            .may_be_kept(),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let state = || word("Whether it is well", &["ok", "unavailable"]);
    let payload = object(
        "The largest message that NATS takes; only when it is below 256 KiB.",
        &["status", "bytes", "reason"],
        json!({
            "status": word("Whether runs fit at all", &["low", "unavailable"]),
            "bytes": count("The `max_payload` of NATS"),
            "reason": text("What does not work"),
        }),
    );
    let check = object(
        "One check.",
        &["status"],
        json!({
            "status": state(),
            "server": or_null(text("Name and version of the NATS server")),
            "disconnects": count("How often the connection was lost"),
            "reason": text("Why it is not well"),
        }),
    );
    let consumers = object(
        "Consumers of tags that refuse every pull; only when there are some.",
        &["status", "reason"],
        json!({
            "status": word("Runs of other tags are executed", &["low"]),
            "reason": text("Which ones, and why"),
        }),
    );
    let checks = object(
        "By name.",
        &["nats", "run_index", "writes"],
        json!({
            "nats": reference("Check"),
            "run_index": reference("Check"),
            "writes": reference("Check"),
            "api_keys": reference("Check"),
            "resources": reference("Check"),
            "consumers": consumers,
            "max_payload": payload,
        }),
    );
    vec![
        ("Alive", object("A sign of life.", &["status"], json!({"status": word("Always ok", &["ok"])}))),
        (
            "Readiness",
            object("All checks.", &["status", "checks"], json!({"status": state(), "checks": checks})),
        ),
        ("Check", check),
    ]
}

fn readiness_example() -> Value {
    json!({"status": "ok", "checks": {
        "nats": {"status": "ok", "server": "name 2.15.1", "disconnects": 0},
        "run_index": {"status": "ok"},
        "writes": {"status": "ok"},
    }})
}

fn unready() -> Value {
    json!({"application/json": {
        "schema": {"anyOf": [reference("Readiness"), reference("Error")]},
    }})
}
