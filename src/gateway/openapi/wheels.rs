//! Operations and shapes of wheels.

use serde_json::{Value, json};

use super::operation::{Operation, json_of, operation};
use super::shape::{bounded, count, described, flag, list_of, object, or_null, reference, text, time, word};
use crate::model::limits::WHEEL_HISTORY_LIMIT;
use crate::model::wheel::CONTENT_TYPE;

const TAG: &str = "wheels";
const NAME: &str = "The file name of the wheel";

pub(super) fn operations() -> Vec<Operation> {
    let items = list_of("By name.", reference("Wheel"));
    let events = list_of("The newest comes first.", reference("WheelEvent"));
    let action = described("Only events of this kind", reference("WheelAction"));
    let bytes = json!({"type": "string", "format": "binary"});
    let disposition = json!({
        "description": "`attachment` with the file name.",
        "required": true,
        "schema": {"type": "string"},
    });
    vec![
        operation("GET", "/wheels", "listWheels", TAG)
            .says("All wheels", "Tenants share them.")
            .answers(200, "Wheels.", json!({"application/json": {"schema": items}})),
        operation("POST", "/wheels", "uploadWheel", TAG)
            .says(
                "Upload a wheel",
                "Workers that serve one of its tags (all workers when it has none) give its newest version to their next runs. A version is uploaded once and must be above all of its package.",
            )
            .takes(true, json!({"multipart/form-data": {"schema": reference("WheelUpload")}}))
            .answers(200, "It is there.", json_of("Wheel", wheel_example()))
            .fails(&[409, 422, 507]),
        operation("GET", "/wheels/history", "listWheelHistory", TAG)
            .says("What was uploaded and deleted", "By whom, and from where. Kept for `PYOCO_WHEEL_HISTORY_TTL_SEC`.")
            .query("limit", bounded("At most so many", WHEEL_HISTORY_LIMIT))
            .query("wheel_name", text("Only events of this wheel"))
            .query("action", action)
            .answers(200, "Events.", json!({"application/json": {"schema": events}}))
            .fails(&[422]),
        operation("GET", "/wheels/{name}", "downloadWheel", TAG)
            .says("Download a wheel", "An answer whose bytes do not have the wheel's hash breaks off before its end.")
            .segment("name", NAME)
            .answers(200, "Its bytes.", json!({CONTENT_TYPE: {"schema": bytes}}))
            .with_header(200, "Content-Disposition", disposition)
            .fails(&[404]),
        operation("DELETE", "/wheels/{name}", "deleteWheel", TAG)
            .says("Delete a wheel", "Workers that have it give it up; runs that have begun keep it to their end.")
            .segment("name", NAME)
            .answers(200, "It is gone.", json_of("WheelDeleted", json!({"name": "flows-1.0-py3-none-any.whl", "deleted": true})))
            .fails(&[404]),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("Wheel", wheel()),
        ("WheelUpload", upload()),
        (
            "WheelDeleted",
            object(
                "What was deleted.",
                &["name", "deleted"],
                json!({"name": text(NAME), "deleted": flag("Always true")}),
            ),
        ),
        ("WheelAction", word("What was done to a wheel.", &["upload", "delete"])),
        ("WheelEvent", event()),
    ]
}

fn tags(about: &str) -> Value {
    list_of(about, json!({"type": "string"}))
}

fn wheel() -> Value {
    object(
        "A wheel of the registry.",
        &["name", "size_bytes", "bucket", "nuid", "digest", "sha256_hex", "mtime", "tags"],
        json!({
            "name": text(NAME),
            "size_bytes": count("Bytes"),
            "bucket": text("The object store"),
            "nuid": or_null(text("Which upload it is from")),
            "digest": or_null(text("`SHA-256=` and the hash in base64url")),
            "sha256_b64": or_null(text("The hash in base64url")),
            "sha256_hex": or_null(text("The hash in hex")),
            "mtime": or_null(text("When it was stored (RFC 3339)")),
            "modified": or_null(time("The same")),
            "tags": tags("Workers that serve one of these get it; all do when there is none"),
        }),
    )
}

fn upload() -> Value {
    let mut replace = flag("Whether a wheel of the same name may be there already");
    replace["default"] = true.into();
    object(
        "A wheel as a file of the form. Its name says package, version and what it fits.",
        &["wheel"],
        json!({
            "wheel": {"type": "string", "format": "binary", "description": "The file"},
            "replace": replace,
            "tags": text("Tags, separated by commas"),
        }),
    )
}

fn event() -> Value {
    let header = |name: &str| or_null(text(&format!("Header `{name}`")));
    object(
        "Something that was done to a wheel.",
        &["event_id", "occurred_at", "action", "wheel_name", "tags", "actor", "source"],
        json!({
            "event_id": text("Its id"),
            "occurred_at": time("When"),
            "action": reference("WheelAction"),
            "wheel_name": text(NAME),
            "tags": tags("The wheel's tags"),
            "size_bytes": or_null(count("Bytes")),
            "sha256_hex": or_null(text("The hash in hex")),
            "replace": or_null(flag("Of an upload: whether a wheel of the same name could be there")),
            "actor": object("Whose key it was.", &[], json!({
                "tenant_id": or_null(text("The key's tenant")),
                "api_key_id": or_null(text("The key")),
            })),
            "source": object("Where the request came from.", &[], json!({
                "remote_addr": or_null(text("Address of the client")),
                "x_forwarded_for": header("X-Forwarded-For"),
                "x_real_ip": header("X-Real-IP"),
                "user_agent": header("User-Agent"),
                "host": header("Host"),
                "scheme": or_null(text("`http`, or what `X-Forwarded-Proto` says")),
            })),
        }),
    )
}

fn wheel_example() -> Value {
    let hash = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";
    let base64 = "tbudgBSg-bHWHiHnlteNzN8TUvI80ygS9IULh4rklEw=";
    json!({
        "name": "flows-1.0-py3-none-any.whl",
        "size_bytes": 4821,
        "bucket": "pyoco_wheels",
        "nuid": "DQKZQ7C8W1UN9QZ2YV6B3A",
        "digest": format!("SHA-256={base64}"),
        "sha256_b64": base64,
        "sha256_hex": hash,
        "mtime": "2026-11-20T09:17:53.520000+00:00",
        "modified": 1_795_166_273.52,
        "tags": ["cpu"],
    })
}
