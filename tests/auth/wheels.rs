//! Wheels at a gateway that asks for keys: who has changed what, and who may know it.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::keys::Key;
use crate::support::wheel::WheelFile;

#[test]
fn the_audit_names_the_wheel_also_of_a_refused_upload() {
    let cluster = Cluster::new().with_keys().gateway().start();
    let (operator, viewer) = (cluster.key("team-a", "operator"), cluster.key("team-a", "viewer"));
    let key = operator.text();
    let wheel = WheelFile::new("tools", "1.0");
    let name = wheel.file_name();
    let status = |answer: crate::support::http::Response| answer.status;
    assert_eq!(status(cluster.as_key(&key).upload(&wheel, "cpu")), 200);
    assert_eq!(status(cluster.as_key(&key).upload(&wheel, "cpu")), 409);
    assert_eq!(status(cluster.as_key(&key).upload(&WheelFile::new("tools", "1.1"), "a.b")), 422);
    assert_eq!(
        status(cluster.as_key(&key).upload_bytes("more-1.0-py3-none-any.whl", b"junk", &[("tags", "")])),
        422
    );
    assert_eq!(status(cluster.as_key(&key).upload_bytes("../tools.whl", b"junk", &[("tags", "")])), 422);
    assert_eq!(status(cluster.as_key(&viewer.text()).upload(&wheel, "")), 403);
    assert_eq!(status(cluster.as_key(&viewer.text()).delete_wheel(&name)), 403);
    assert_eq!(status(cluster.as_key(&key).delete_wheel("none-1.0-py3-none-any.whl")), 404);
    assert_eq!(status(cluster.as_key(&key).delete_wheel(&name)), 200);

    let all = cluster.admin().audit(&["--action", "wheel"]);
    let told: Vec<_> = all
        .iter()
        .map(|entry| {
            let word = |field: &str| entry[field].as_str().unwrap_or_default();
            let status = entry["status"].as_u64().unwrap();
            (word("action"), word("object"), word("outcome"), status, word("actor"))
        })
        .collect();
    let actor = |made: &Key| format!("api_key:{}", made.id());
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
    let cluster = Cluster::new().with_keys().gateway().start();
    let (a, b) = (cluster.key("team-a", "operator"), cluster.key("team-b", "admin"));
    let (a_key, b_key) = (a.text(), b.text());
    let wheel = WheelFile::new("tools", "1.0");
    let name = wheel.file_name();
    assert_eq!(cluster.as_key(&a_key).upload(&wheel, "").status, 200);
    // Tenants share the wheels.
    assert_eq!(cluster.as_key(&b_key).get(&format!("/wheels/{name}")).body, wheel.build());
    assert_eq!(cluster.as_key(&b_key).delete_wheel(&name).status, 200);
    let actors = |key: &str| -> Vec<Value> {
        let events = cluster.as_key(key).get("/wheels/history").json();
        events.as_array().unwrap().iter().map(|event| event["actor"].clone()).collect()
    };
    let actor = |tenant: &str, made: &Key| json!({"tenant_id": tenant, "api_key_id": made.id()});
    let expected = [actor("team-b", &b), actor("team-a", &a)];
    assert_eq!(actors(&a_key), expected);
    assert_eq!(actors(&b_key), expected);

    assert_eq!(cluster.as_key(&a_key).upload(&wheel, "").status, 200);
    for role in ["viewer", "submitter"] {
        let key = cluster.key_text("team-c", role);
        let refused = cluster.as_key(&key).get("/wheels/history");
        assert_eq!(refused.status, 403, "{}", refused.text());
        let listed = cluster.as_key(&key).get("/wheels");
        let fetched = cluster.as_key(&key).get(&format!("/wheels/{name}"));
        assert_eq!((listed.status, fetched.status), (200, 200), "{role}");
        for answer in [refused, listed] {
            let text = answer.text();
            for secret in ["team-a", "team-b", &a.id(), &b.id()] {
                assert!(!text.contains(secret), "{role}: {text}");
            }
        }
    }
}
