//! The registry of wheels: uploads, lists, and what workers have of it. Wheels are built by `wheel`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::cluster::{Cluster, Options, Worker, with_flags};
use super::forms::Part;
use super::http::{Client, Response};
use super::python::V08;
use super::runs::RUN_DEADLINE;
use super::wait::eventually;
use super::wheel::WheelFile;

impl Client {
    /// Uploads a wheel for these tags, separated by commas.
    pub fn upload(&self, wheel: &WheelFile, tags: &str) -> Response {
        self.upload_bytes(&wheel.file_name(), &wheel.build(), &[("tags", tags)])
    }

    /// Uploads a file under this name, with these fields before it.
    pub fn upload_bytes(&self, name: &str, bytes: &[u8], fields: &[(&str, &str)]) -> Response {
        let fields = fields.iter().map(|(name, value)| (*name, None, value.as_bytes()));
        let parts: Vec<Part<'_>> = fields.chain([("wheel", Some(name), bytes)]).collect();
        self.post_form("/wheels", &parts)
    }

    /// Uploads a wheel that must be taken; the item.
    pub fn add_wheel(&self, wheel: &WheelFile, tags: &str) -> Value {
        let answer = self.upload(wheel, tags);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The names of all wheels, in the order of the list.
    pub fn wheel_names(&self) -> Vec<String> {
        let items = self.get_json("/wheels");
        let items = items.as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    pub fn delete_wheel(&self, name: &str) -> Response {
        self.delete(&format!("/wheels/{name}"))
    }

    /// What the gateway shows of a worker's wheels.
    pub fn wheel_sync(&self, worker_id: &str) -> Value {
        let answer = self.get("/workers?scope=all");
        // The gateway of the Python package says so while there is no worker, and now and then.
        if answer.status == 503 && answer.text().contains("NoKeysError") {
            return Value::Null;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        let records = answer.json();
        let mut records = records.as_array().unwrap().iter();
        let found = records.find(|record| record["worker_id"] == worker_id);
        found.map_or(Value::Null, |record| record["wheel_sync"].clone())
    }

    /// Waits until a worker's `wheel_sync` satisfies `wanted`. Interpreters start on a machine that runs all
    /// other tests, too.
    pub fn wait_sync(&self, worker_id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + RUN_DEADLINE;
        eventually(RUN_DEADLINE * 2, &format!("wheel_sync of {worker_id}: {what}"), || {
            let sync = self.wheel_sync(worker_id);
            assert!(Instant::now() < end, "waiting for {what} of {worker_id}: {sync:#}");
            wanted(&sync).then_some(sync)
        })
    }

    /// Waits until new runs of a worker get exactly these wheels.
    pub fn wait_installed(&self, worker_id: &str, names: &[&str]) -> Value {
        self.wait_sync(worker_id, &format!("{names:?} installed"), |sync| {
            let installed = sync["installed_wheels"].as_array().map_or(Vec::new(), Clone::clone);
            let installed = installed.iter().map(|wheel| &wheel["wheel_name"]);
            sync["last_result"] != "idle" && installed.eq(names.iter().copied())
        })
    }
}

impl Cluster {
    /// A worker of ours that looks at the registry every second. Nothing is waited for.
    pub fn spawn_wheel_worker(&self, id: &str, tags: &str, more: &[&str]) -> Worker {
        self.spawn_worker(id, wheel_sync_of(tags).flags(more))
    }

    /// Messages in the stream of the store: what really is there.
    pub fn stored_wheel_messages(&self) -> u64 {
        let inspected = self.bus.inspect();
        let mut stores = inspected.into_iter();
        let (_, store) = stores.find(|(name, _)| name == "OBJ_pyoco_wheels").unwrap();
        store.unwrap().map_or(0, |store| store.info["state"]["messages"].as_u64().unwrap())
    }
}

fn wheel_sync_of(tags: &str) -> Options {
    with_flags(&["--tags", tags, "--wheel-sync", "--wheel-sync-interval-sec", "1", "--concurrency", "2"])
        .python(V08)
        .envs(&[("PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC", "0.5")])
}

impl Worker {
    pub fn unpacked(&self) -> Vec<PathBuf> {
        unpacked(&self.folder.path().join(".pyoco/wheels"))
    }
}

/// The folders of wheels below `folder`.
pub fn unpacked(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_dir() && path.file_name().unwrap().len() == 64).collect()
}
