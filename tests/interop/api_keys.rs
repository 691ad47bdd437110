//! API keys of the Python package at our gateway, and ours beside its own.

use serde_json::{Value, json};

use crate::cluster::cluster_with_flows;
use crate::support::cluster::{ASKING, Cluster, Gateway, with_env};
use crate::support::keys::{Admin, Key};
use crate::support::runs::ids;
use crate::support::wait::{PATIENCE, eventually};

/// `pyoco-server-admin` of either side, ours first.
fn both(cluster: &Cluster) -> (Admin, Admin) {
    (cluster.admin(), Admin::python(&cluster.nats))
}

fn create(admin: &Admin, tenant: &str) -> Key {
    admin.key(&["create", "--tenant", tenant])
}

fn submit(gateway: &Gateway, key: &Key, tag: &str) -> String {
    gateway.as_key(&key.text()).submit_flow(tag, "sums", json!({"x": 2}))
}

#[test]
fn keys_of_the_python_side_open_our_gateway() {
    let cluster = cluster_with_flows();
    let (our_admin, their_admin) = both(&cluster);
    let gateway = cluster.start_gateway(with_env(&ASKING));
    let _worker = cluster.start_python_worker("py");
    let theirs = create(&their_admin, "demo");
    gateway.as_key(&theirs.text()).wait_answer("/runs", 200);
    let run_id = submit(&gateway, &theirs, "py");
    // Whatever the Python worker writes, the run stays its tenant's.
    let run = eventually(PATIENCE * 2, "the run to end", || {
        let run = gateway.as_key(&theirs.text()).get(&format!("/runs/{run_id}")).json();
        (run["status"] == "COMPLETED").then_some(run)
    });
    assert_eq!((&run["tenant_id"], &run["api_key_id"]), (&json!("demo"), &theirs["key_id"]));
    let ours = create(&our_admin, "demo");
    let stranger = create(&our_admin, "else");
    assert_eq!(
        ids(&gateway.as_key(&ours.text()).wait_answer("/runs", 200).json()),
        [run_id.as_str()],
        "the same tenant"
    );
    assert_eq!(gateway.as_key(&stranger.text()).wait_answer("/runs", 200).json(), json!([]));
    assert_eq!(gateway.as_key(&stranger.text()).get(&format!("/runs/{run_id}")).status, 404);
    for client in [gateway.python_program(), gateway.program()] {
        let listed = client.json(&["--api-key", &theirs.text(), "get", &run_id]);
        assert_eq!(listed["status"], "COMPLETED");
    }

    let list = our_admin.keys_json(&["list"]);
    let shown = list.as_array().unwrap().iter().find(|key| key["key_id"] == theirs["key_id"]);
    assert_eq!(shown.unwrap()["role"], "operator", "{list}");
    their_admin.revoke(&theirs);
    gateway.as_key(&theirs.text()).wait_answer("/runs", 403);
}

#[test]
fn our_keys_do_not_disturb_the_python_gateway() {
    let cluster = cluster_with_flows();
    let (our_admin, their_admin) = both(&cluster);
    let (ours, theirs) = (create(&our_admin, "demo"), create(&their_admin, "demo"));
    let our_gateway = cluster.start_gateway(with_env(&ASKING));
    let python_gateway = cluster.start_python_gateway(with_env(&ASKING));
    our_gateway.as_key(&theirs.text()).wait_answer("/runs", 200);
    our_gateway.as_key(&ours.text()).wait_answer("/runs", 200);
    // Our gateway has written into their record when it was used; it is good all the same.
    eventually(PATIENCE, "the use to be noted", || {
        let list = our_admin.keys_json(&["list"]);
        list.as_array().unwrap().iter().all(|key| key["last_used_at"].is_f64()).then_some(())
    });
    let run_id = submit(&python_gateway, &theirs, "nobody");
    assert_eq!(ids(&python_gateway.as_key(&theirs.text()).get("/runs").json()), [run_id.as_str()]);
    our_gateway.as_key(&ours.text()).wait_answer(&format!("/runs/{run_id}"), 200);
    // It knows no argon2id.
    let refused = python_gateway.as_key(&ours.text()).get("/runs");
    assert_eq!((refused.status, &refused.json()["detail"]), (403, &json!("invalid api key")));

    let listed = their_admin.keys_json(&["list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    their_admin.revoke(&ours);
    our_gateway.as_key(&ours.text()).wait_answer("/runs", 403);
    our_admin.revoke(&theirs);
    python_gateway.as_key(&theirs.text()).wait_answer("/runs", 403);
    our_gateway.as_key(&theirs.text()).wait_answer("/runs", 403);
    let listed = our_admin.keys_json(&["list"]);
    let is_revoked = |key: &Value| key["revoked_at"].is_f64();
    assert!(listed.as_array().unwrap().iter().all(is_revoked), "{listed}");
}
