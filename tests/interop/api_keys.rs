//! API keys of the Python package at our gateway, and ours beside its own.

use serde_json::{Value, json};

use crate::site::{ASKING, Client, Gateway, Site, ids};
use crate::support::http::{self, Response};
use crate::support::process::{Binary, Finished, run};
use crate::support::python::package_program;
use crate::support::wait::{PATIENCE, eventually};

/// `pyoco-server-admin api-key` of either side.
struct Admin<'a> {
    site: &'a Site,
    is_ours: bool,
}

impl Admin<'_> {
    fn finish(&self, arguments: &[&str]) -> Finished {
        let command = match self.is_ours {
            true => Binary::Admin.command(),
            false => package_program("pyoco-server-admin"),
        };
        let mut command = self.site.place(command);
        run(command.envs(ASKING).arg("api-key").args(arguments), b"", PATIENCE)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.finish(arguments);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
        serde_json::from_str(&finished.stdout).unwrap()
    }

    fn key(&self, tenant: &str) -> Value {
        self.json(&["create", "--tenant", tenant])
    }
}

fn both(site: &Site) -> (Admin<'_>, Admin<'_>) {
    (Admin { site, is_ours: true }, Admin { site, is_ours: false })
}

fn text(made: &Value) -> &str {
    made["api_key"].as_str().unwrap()
}

fn get(gateway: &Gateway, key: &Value, path: &str) -> Response {
    http::request(gateway.address, "GET", path, &[("X-API-Key", text(key))], b"")
}

fn wait_status(gateway: &Gateway, key: &Value, path: &str, status: u16) -> Value {
    let answer = eventually(PATIENCE, &format!("{status} for {path}"), || {
        Some(get(gateway, key, path)).filter(|answer| answer.status == status)
    });
    answer.json()
}

fn submit(gateway: &Gateway, key: &Value, tag: &str) -> String {
    let headers = [("X-API-Key", text(key)), ("Content-Type", "application/json")];
    let body = json!({"flow_name": "sums", "tag": tag, "params": {"x": 2}}).to_string();
    let answer = http::request(gateway.address, "POST", "/runs", &headers, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn keys_of_the_python_side_open_our_gateway() {
    let site = Site::start();
    let (our_admin, their_admin) = both(&site);
    let gateway = site.our_asking_gateway();
    let _worker = site.python_worker("py");
    let theirs = their_admin.key("demo");
    wait_status(&gateway, &theirs, "/runs", 200);
    let run_id = submit(&gateway, &theirs, "py");
    // Whatever the Python worker writes, the run stays its tenant's.
    let run = eventually(PATIENCE * 2, "the run to end", || {
        let run = get(&gateway, &theirs, &format!("/runs/{run_id}")).json();
        (run["status"] == "COMPLETED").then_some(run)
    });
    assert_eq!((&run["tenant_id"], &run["api_key_id"]), (&json!("demo"), &theirs["key_id"]));
    let ours = our_admin.key("demo");
    let stranger = our_admin.key("else");
    assert_eq!(ids(&wait_status(&gateway, &ours, "/runs", 200)), [&run_id], "the same tenant");
    assert_eq!(wait_status(&gateway, &stranger, "/runs", 200), json!([]));
    assert_eq!(get(&gateway, &stranger, &format!("/runs/{run_id}")).status, 404);
    for client in [Client::python(&site, &gateway), Client::ours(&site, &gateway)] {
        let listed = client.json(&["--api-key", text(&theirs), "get", &run_id]);
        assert_eq!(listed["status"], "COMPLETED");
    }

    let list = our_admin.json(&["list"]);
    let shown = list.as_array().unwrap().iter().find(|key| key["key_id"] == theirs["key_id"]);
    assert_eq!(shown.unwrap()["role"], "operator", "{list}");
    their_admin.json(&["revoke", "--key-id", theirs["key_id"].as_str().unwrap()]);
    wait_status(&gateway, &theirs, "/runs", 403);
}

#[test]
fn our_keys_do_not_disturb_the_python_gateway() {
    let site = Site::start();
    let (our_admin, their_admin) = both(&site);
    let (ours, theirs) = (our_admin.key("demo"), their_admin.key("demo"));
    let our_gateway = site.our_asking_gateway();
    let python_gateway = site.python_asking_gateway();
    wait_status(&our_gateway, &theirs, "/runs", 200);
    wait_status(&our_gateway, &ours, "/runs", 200);
    // Our gateway has written into their record when it was used; it is good all the same.
    eventually(PATIENCE, "the use to be noted", || {
        let list = our_admin.json(&["list"]);
        list.as_array().unwrap().iter().all(|key| key["last_used_at"].is_f64()).then_some(())
    });
    let run_id = submit(&python_gateway, &theirs, "nobody");
    assert_eq!(ids(&get(&python_gateway, &theirs, "/runs").json()), [&run_id]);
    wait_status(&our_gateway, &ours, &format!("/runs/{run_id}"), 200);
    // It knows no argon2id.
    let refused = get(&python_gateway, &ours, "/runs");
    assert_eq!((refused.status, &refused.json()["detail"]), (403, &json!("invalid api key")));

    let listed = their_admin.json(&["list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    their_admin.json(&["revoke", "--key-id", ours["key_id"].as_str().unwrap()]);
    wait_status(&our_gateway, &ours, "/runs", 403);
    our_admin.json(&["revoke", "--key-id", theirs["key_id"].as_str().unwrap()]);
    wait_status(&python_gateway, &theirs, "/runs", 403);
    wait_status(&our_gateway, &theirs, "/runs", 403);
    let listed = our_admin.json(&["list"]);
    let is_revoked = |key: &Value| key["revoked_at"].is_f64();
    assert!(listed.as_array().unwrap().iter().all(is_revoked), "{listed}");
}
