//! A nats-server and gateways in front of it that ask for keys, and requests with and without one.

use std::net::SocketAddr;

use pyoco_server::bus::Bus;
use serde_json::{Value, json};

use crate::desk::{self, PEPPER};
use crate::stage::{Gateway, form};
use crate::support::http::{self, Connection, Response};
use crate::support::nats::NatsServer;
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wheel::WheelFile;

/// What a gateway is told so that it asks for keys.
pub const ASKING: [(&str, &str); 2] =
    [("PYOCO_HTTP_AUTH_MODE", "api_key"), ("PYOCO_AUTH_PEPPER", PEPPER)];

/// What a test plays in. The gateway ends before NATS does.
pub struct House {
    /// The gateway.
    pub gateway: Gateway,
    /// Our own way to NATS.
    pub bus: Bus,
    /// Its NATS.
    pub nats: NatsServer,
}

impl House {
    /// Everything started and ready.
    pub fn start() -> House {
        House::start_with(&[])
    }

    /// The same with more in the gateway's environment.
    pub fn start_with(environment: &[(&str, &str)]) -> House {
        let nats = NatsServer::start();
        let mut gateway = Gateway::start(&nats, &[&ASKING[..], environment].concat());
        gateway.wait_ready();
        let bus = desk::connect(&nats);
        House { gateway, bus, nats }
    }

    /// One more gateway on the same NATS.
    pub fn another_gateway(&self) -> Gateway {
        let mut gateway = Gateway::start(&self.nats, &ASKING);
        gateway.wait_ready();
        gateway
    }

    /// Where the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    /// A key that the gateway knows already.
    pub fn key(&self, tenant: &str, role: &str) -> Value {
        let made = desk::make(&self.nats, tenant, role);
        self.wait_status(&desk::text(&made), "/runs", 200);
        made
    }

    /// The text of such a key.
    pub fn key_text(&self, tenant: &str, role: &str) -> String {
        desk::text(&self.key(tenant, role))
    }

    /// GET with a key.
    pub fn get(&self, key: &str, path: &str) -> Response {
        get(self.address(), key, path)
    }

    /// POST of a JSON body with a key.
    pub fn post(&self, key: &str, path: &str, body: &Value) -> Response {
        let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
        http::request(self.address(), "POST", path, &headers, body.to_string().as_bytes())
    }

    /// Uploads a wheel for these tags with a key.
    pub fn upload(&self, key: &str, wheel: &WheelFile, tags: &str) -> Response {
        self.upload_bytes(key, &wheel.file_name(), &wheel.build(), tags)
    }

    /// The same with any bytes under any name.
    pub fn upload_bytes(&self, key: &str, name: &str, bytes: &[u8], tags: &str) -> Response {
        let parts = [("tags", None, tags.as_bytes()), ("wheel", Some(name), bytes)];
        let (content_type, body) = form(&parts);
        let headers = [("X-API-Key", key), ("Content-Type", &*content_type)];
        http::request(self.address(), "POST", "/wheels", &headers, &body)
    }

    /// Deletes a wheel with a key.
    pub fn delete_wheel(&self, key: &str, name: &str) -> Response {
        let path = format!("/wheels/{name}");
        http::request(self.address(), "DELETE", &path, &[("X-API-Key", key)], b"")
    }

    /// Submits a run that must be accepted; its id.
    pub fn submit(&self, key: &str) -> String {
        let answer = self.post(key, "/runs", &json!({"flow_name": "main", "params": {"a": 1}}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["run_id"].as_str().unwrap().to_owned()
    }

    /// Waits until a GET with a key is answered so.
    pub fn wait_status(&self, key: &str, path: &str, status: u16) -> Response {
        eventually(PATIENCE, &format!("{status} for {path}"), || {
            Some(self.get(key, path)).filter(|answer| answer.status == status)
        })
    }

    /// The value of a metric, read with this key.
    pub fn metric(&self, key: &str, name: &str) -> f64 {
        let text = self.get(key, "/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

/// GET with a key.
pub fn get(address: SocketAddr, key: &str, path: &str) -> Response {
    http::request(address, "GET", path, &[("X-API-Key", key)], b"")
}

/// A stream of events that has been answered 200.
pub fn stream(address: SocketAddr, key: &str, path: &str) -> Connection {
    let mut connection = Connection::open(address);
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    let head = connection.take_until(b"\r\n\r\n").unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    connection
}

/// What is wrong, in the words of an answer.
pub fn detail(answer: &Response) -> String {
    answer.json()["detail"].as_str().unwrap_or_default().to_owned()
}
