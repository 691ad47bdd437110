//! API keys and the audit, as an operator handles them: `pyoco-server-admin` against the nats-server of one
//! test, ours or that of the Python package.

use std::ops::Deref;
use std::process::Command;

use pyoco_server::bus::Bus;
use serde_json::Value;

use super::cluster::Cluster;
use super::nats::NatsServer;
use super::process::{Binary, Finished, run};
use super::python::package_program;
use super::wait::PATIENCE;

/// The pepper of all tests.
pub const PEPPER: &str = "pepper-of-the-tests";

/// What `create` and `rotate` print. It dereferences to the document.
#[derive(Debug, Clone)]
pub struct Key(Value);

impl Key {
    pub fn text(&self) -> String {
        self["api_key"].as_str().expect("no key").to_owned()
    }

    /// The id of the key.
    pub fn id(&self) -> String {
        self["key_id"].as_str().expect("no key id").to_owned()
    }

    /// What follows the dot.
    pub fn secret(&self) -> String {
        self.text().split_once('.').expect("no secret").1.to_owned()
    }

    /// Its record as it lies in its bucket.
    pub fn record(&self, bus: &Bus) -> Value {
        let entry = bus.auth().get(&format!("api_keys.{}", self.id())).unwrap().expect("no record");
        serde_json::from_slice(&entry.value).unwrap()
    }
}

impl Deref for Key {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

/// `pyoco-server-admin` on one nats-server.
pub struct Admin {
    program: fn(&str) -> Command,
    nats_url: String,
    pepper: String,
}

impl Admin {
    pub fn ours(nats: &NatsServer) -> Admin {
        let program = |url: &str| {
            let mut command = Binary::Admin.command();
            command.args(["--nats-url", url]);
            command
        };
        Admin { program, nats_url: nats.url(), pepper: PEPPER.to_owned() }
    }

    /// That of the Python package.
    pub fn python(nats: &NatsServer) -> Admin {
        let program = |url: &str| {
            let mut command = package_program("pyoco-server-admin");
            command.env("PYOCO_NATS_URL", url);
            command
        };
        Admin { program, ..Admin::ours(nats) }
    }

    /// The same with another pepper.
    pub fn with_pepper(self, pepper: &str) -> Admin {
        Admin { pepper: pepper.to_owned(), ..self }
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = (self.program)(&self.nats_url);
        run(command.env("PYOCO_AUTH_PEPPER", &self.pepper).args(arguments), b"", PATIENCE)
    }

    /// Runs `api-key` with these arguments.
    pub fn keys(&self, arguments: &[&str]) -> Finished {
        self.run(&[&["api-key"], arguments].concat())
    }

    /// The same, which must succeed; what it prints.
    pub fn keys_json(&self, arguments: &[&str]) -> Value {
        let finished = self.keys(arguments);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// A key made with these arguments, `create` or `rotate` first.
    pub fn key(&self, arguments: &[&str]) -> Key {
        Key(self.keys_json(arguments))
    }

    /// A key of a tenant in a role.
    pub fn create(&self, tenant: &str, role: &str) -> Key {
        self.key(&["create", "--tenant", tenant, "--role", role])
    }

    pub fn revoke(&self, key: &Key) {
        self.keys_json(&["revoke", "--key-id", &key.id()]);
    }

    /// What `audit` prints with these arguments; it must succeed.
    pub fn audit(&self, arguments: &[&str]) -> Vec<Value> {
        let finished = self.run(&[&["audit"], arguments].concat());
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Cluster {
    /// `pyoco-server-admin` on this cluster.
    pub fn admin(&self) -> Admin {
        Admin::ours(&self.nats)
    }

    /// A key that the gateway knows already.
    pub fn key(&self, tenant: &str, role: &str) -> Key {
        let key = self.admin().create(tenant, role);
        self.as_key(&key.text()).wait_answer("/runs", 200);
        key
    }

    /// The text of such a key.
    pub fn key_text(&self, tenant: &str, role: &str) -> String {
        self.key(tenant, role).text()
    }
}
