//! Wheels at a gateway that asks for keys: who has changed what, and who may know it.

use serde_json::{Value, json};

use crate::audit::entries;
use crate::desk;
use crate::house::House;
use crate::support::wheel::WheelFile;

#[test]
fn the_audit_names_the_wheel_also_of_a_refused_upload() {
    let house = House::start();
    let (operator, viewer) = (house.key("team-a", "operator"), house.key("team-a", "viewer"));
    let key = desk::text(&operator);
    let wheel = WheelFile::new("tools", "1.0");
    let name = wheel.file_name();
    let status = |answer: crate::support::http::Response| answer.status;
    assert_eq!(status(house.upload(&key, &wheel, "cpu")), 200);
    assert_eq!(status(house.upload(&key, &wheel, "cpu")), 409);
    assert_eq!(status(house.upload(&key, &WheelFile::new("tools", "1.1"), "a.b")), 422);
    assert_eq!(status(house.upload_bytes(&key, "more-1.0-py3-none-any.whl", b"junk", "")), 422);
    assert_eq!(status(house.upload_bytes(&key, "../tools.whl", b"junk", "")), 422);
    assert_eq!(status(house.upload(&desk::text(&viewer), &wheel, "")), 403);
    assert_eq!(status(house.delete_wheel(&desk::text(&viewer), &name)), 403);
    assert_eq!(status(house.delete_wheel(&key, "none-1.0-py3-none-any.whl")), 404);
    assert_eq!(status(house.delete_wheel(&key, &name)), 200);

    let all = entries(&house.nats, &["--action", "wheel"]);
    let told: Vec<_> = all
        .iter()
        .map(|entry| {
            let word = |field: &str| entry[field].as_str().unwrap_or_default();
            let status = entry["status"].as_u64().unwrap();
            (word("action"), word("object"), word("outcome"), status, word("actor"))
        })
        .collect();
    let actor = |made: &Value| format!("api_key:{}", desk::id(made));
    let (operator, viewer) = (actor(&operator), actor(&viewer));
    assert_eq!(
        told,
        [
            ("wheel.upload", &*name, "done", 200, &*operator),
            ("wheel.upload", &*name, "refused", 409, &*operator),
            ("wheel.upload", "tools-1.1-py3-none-any.whl", "refused", 422, &*operator),
            ("wheel.upload", "more-1.0-py3-none-any.whl", "refused", 422, &*operator),
            // What cannot be a wheel's name is no object.
            ("wheel.upload", "", "refused", 422, &*operator),
            // Nothing is read of a body that nobody may send.
            ("wheel.upload", "", "refused", 403, &*viewer),
            ("wheel.delete", &*name, "refused", 403, &*viewer),
            ("wheel.delete", "none-1.0-py3-none-any.whl", "refused", 404, &*operator),
            ("wheel.delete", &*name, "done", 200, &*operator),
        ]
    );
}

#[test]
fn the_history_names_tenant_and_key_to_those_who_look_after_the_registry() {
    let house = House::start();
    let (a, b) = (house.key("team-a", "operator"), house.key("team-b", "admin"));
    let (a_key, b_key) = (desk::text(&a), desk::text(&b));
    let wheel = WheelFile::new("tools", "1.0");
    let name = wheel.file_name();
    assert_eq!(house.upload(&a_key, &wheel, "").status, 200);
    // Tenants share the wheels.
    assert_eq!(house.get(&b_key, &format!("/wheels/{name}")).body, wheel.build());
    assert_eq!(house.delete_wheel(&b_key, &name).status, 200);
    let actors = |key: &str| -> Vec<Value> {
        let events = house.get(key, "/wheels/history").json();
        events.as_array().unwrap().iter().map(|event| event["actor"].clone()).collect()
    };
    let actor =
        |tenant: &str, made: &Value| json!({"tenant_id": tenant, "api_key_id": desk::id(made)});
    let expected = [actor("team-b", &b), actor("team-a", &a)];
    assert_eq!(actors(&a_key), expected);
    assert_eq!(actors(&b_key), expected);

    assert_eq!(house.upload(&a_key, &wheel, "").status, 200);
    for role in ["viewer", "submitter"] {
        let key = house.key_text("team-c", role);
        let refused = house.get(&key, "/wheels/history");
        assert_eq!(refused.status, 403, "{}", refused.text());
        let listed = house.get(&key, "/wheels");
        let fetched = house.get(&key, &format!("/wheels/{name}"));
        assert_eq!((listed.status, fetched.status), (200, 200), "{role}");
        for answer in [refused, listed] {
            let text = answer.text();
            for secret in ["team-a", "team-b", &desk::id(&a), &desk::id(&b)] {
                assert!(!text.contains(secret), "{role}: {text}");
            }
        }
    }
}
