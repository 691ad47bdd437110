//! Behind nginx, Caddy and HAProxy, with the configurations that `docs/operations.md` shows.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use pyoco_server::model::limits::{IDLE_DEADLINE, MAX_JSON_BODY_BYTES};
use pyoco_server::model::run::RunStatus;
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, with_env, with_flags};
use crate::support::forms::form;
use crate::support::http::{Client, Connection, Response};
use crate::support::reverse_proxy::{Kind, ReverseProxy};
use crate::support::runs::accepted;
use crate::support::wait::PATIENCE;
use crate::support::wheel::{WheelFile, noise};

/// Where clients connect from: no proxy that the gateway trusts.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
/// What clients and proxies wait for the next request on an idle connection, unless they are told otherwise.
const PROXY_KEEPS_IDLE: Duration = Duration::from_secs(60);
/// An event that waits in a buffer comes with the next one, or never.
const EVENT_DELAY: Duration = Duration::from_secs(2);
/// The longest wheel that this gateway takes.
const MAX_WHEEL_MB: usize = 5;

/// A gateway, and a proxy in front of it.
struct House {
    proxy: ReverseProxy,
    cluster: Cluster,
    kind: Kind,
}

impl House {
    fn behind(kind: Kind) -> House {
        let cluster = Cluster::new()
            .gateway()
            .flags(&["--behind-proxy"])
            .envs(&[
                ("PYOCO_TRUSTED_PROXIES", "127.0.0.1"),
                ("PYOCO_LOG_LEVEL", "debug"),
                ("PYOCO_WHEEL_MAX_BYTES", &(MAX_WHEEL_MB << 20).to_string()),
            ])
            .start();
        let proxy = ReverseProxy::start(kind, cluster.address);
        House { proxy, cluster, kind }
    }

    fn client(&self) -> &Client {
        &self.proxy.client
    }

    /// One request from [`CLIENT`] through the proxy, with these header lines.
    fn ask(&self, request_line: &str, headers: &str) -> Response {
        let mut connection = Connection::open_from(CLIENT, self.client().address);
        let host = self.client().address;
        let head = format!("{request_line} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        connection.send(head.as_bytes()).unwrap();
        connection.receive().unwrap()
    }

    /// What the gateway's log says of the request with this id.
    fn logged(&mut self, request_id: &str) -> String {
        let log = &mut self.cluster.gateways[0].process;
        log.wait_for_line(PATIENCE, request_id, |line| {
            line.contains(request_id) && line.contains("answered") && line.contains("peer")
        })
    }
}

fn check(kind: Kind) {
    let mut house = House::behind(kind);
    runs_come_and_go(&house);
    events_come_one_by_one(&house);
    wheels_pass_whole(&house);
    the_page_has_a_head(&house);
    bodies_are_bounded(&house);
    connections_are_used_again(&house);
    the_client_is_known(&mut house);
    redirects_stay(&house);
}

#[test]
fn nginx_passes_everything_on() {
    check(Kind::Nginx);
}

#[test]
fn caddy_passes_everything_on() {
    check(Kind::Caddy);
}

#[test]
fn haproxy_passes_everything_on() {
    check(Kind::HaProxy);
}

#[test]
fn no_proxy_gives_an_idle_connection_up_later_than_the_gateway() {
    assert!(IDLE_DEADLINE > PROXY_KEEPS_IDLE + Duration::from_secs(10));
}

#[test]
fn headers_of_a_proxy_that_is_not_trusted_are_ignored_with_one_warning() {
    let cluster = Cluster::new().start();
    let options = with_flags(&["--behind-proxy"]);
    let mut gateway = cluster.start_gateway(
        options.and(with_env(&[("PYOCO_TRUSTED_PROXIES", "10.0.0.0/8"), ("PYOCO_LOG_LEVEL", "debug")])),
    );
    let proxies =
        [Kind::Nginx, Kind::Caddy, Kind::HaProxy].map(|kind| ReverseProxy::start(kind, gateway.address));
    for (proxy, id) in proxies.iter().zip(["first-1", "second-2", "third-3"]) {
        let id = ("X-Request-ID", id);
        assert_eq!(proxy.client.request("GET", "/runs", &[id], b"").status, 200);
        let line = gateway.process.wait_for_line(PATIENCE, id.1, |line| {
            line.contains(id.1) && line.contains("answered") && line.contains("peer")
        });
        assert!(line.contains("127.0.0.1"), "{line}");
    }
    let wheel = WheelFile::new("untrusted", "1");
    proxies[2].client.add_wheel(&wheel, "cpu");
    let source = &gateway.get_json("/wheels/history")[0]["source"];
    assert_eq!((&source["remote_addr"], &source["scheme"]), (&json!("127.0.0.1"), &json!("http")));
    let log = gateway.process.stderr();
    assert_eq!(log.matches("PYOCO_TRUSTED_PROXIES").count(), 1, "{log}");
}

fn runs_come_and_go(house: &House) {
    let client = house.client();
    let run_id = client.submit(&json!({"flow_name": "main", "params": {"é": "山"}}));
    let document = "version: 1\nflow: {graph: a}\ntasks: {a: {use: builtin/echo}}\n";
    client.submit_yaml("cpu", "main", document);
    // As .NET, Node streams and generators send it.
    let mut connection = Connection::open(client.address);
    let host = client.address;
    let head = format!(
        "POST /runs HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    connection.send(head.as_bytes()).unwrap();
    connection.send(b"8\r\n{\"flow_n\r\ne\r\name\":\"second\"}\r\n0\r\n\r\n").unwrap();
    let second = accepted(&connection.receive().unwrap());
    let listed = client.get_json("/runs");
    for id in [&run_id, &second] {
        assert!(listed.as_array().unwrap().iter().any(|run| run["run_id"] == **id), "{listed}");
    }
    let cancelled = client.post_nothing(&format!("/runs/{run_id}/cancel"));
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    // A request without a body and without a length, as some clients cancel.
    let bare = house.ask(&format!("POST /runs/{second}/cancel"), "");
    assert_eq!(bare.status, 200, "{}", bare.text());
    client.wait_status(&run_id, "CANCELLING");
}

fn events_come_one_by_one(house: &House) {
    let id = "watched";
    house.cluster.put_run(id, 1.0, |_| {});
    house.cluster.wait_status(id, "PENDING");
    let begun = Instant::now();
    let mut stream = house.client().events(&format!("/runs/{id}/watch"));
    assert_eq!(stream.event().data["snapshot"]["updated_at"], 1.0);
    assert!(begun.elapsed() < EVENT_DELAY, "{:?}", begun.elapsed());
    for step in 2..12 {
        let put = Instant::now();
        house.cluster.put_run(id, f64::from(step), |run| run.status = RunStatus::Running);
        let event = stream.named("snapshot");
        assert_eq!(event.data["snapshot"]["updated_at"], f64::from(step));
        assert!(put.elapsed() < EVENT_DELAY, "{:?}: {:?}", house.kind, put.elapsed());
    }
}

fn wheels_pass_whole(house: &House) {
    let wheel = WheelFile::new("passed", "1").file("passed/noise.bin", noise(3 << 20));
    let bytes = wheel.build();
    let item = house.client().add_wheel(&wheel, "cpu");
    assert_eq!(item["size_bytes"], bytes.len());
    let path = format!("/wheels/{}", wheel.file_name());
    let download = house.client().get(&path);
    assert_eq!(download.status, 200);
    assert!(download.body == bytes, "{} bytes of {}", download.body.len(), bytes.len());
    let head = house.client().request("HEAD", &path, &[], b"");
    assert_eq!(head.header("content-length"), Some(bytes.len().to_string().as_str()));
}

fn the_page_has_a_head(house: &House) {
    let (page, head) = (house.client().get("/"), house.client().request("HEAD", "/", &[], b""));
    assert_eq!((page.status, head.status), (200, 200));
    assert_eq!(head.header("content-length"), Some(page.body.len().to_string().as_str()));
    assert_eq!(head.header("etag"), page.header("etag"));
    // An SSO proxy names people as they write themselves.
    assert_eq!(house.ask("GET /runs", "X-Forwarded-User: 山田\r\n").status, 200);
}

/// The gateway refuses such bodies from their head, while they still arrive. Its answer must get through.
fn bodies_are_bounded(house: &House) {
    let too_large = usize::try_from(MAX_JSON_BODY_BYTES).unwrap() + 1;
    let answer = house.client().send_json("POST", "/runs", &" ".repeat(too_large));
    assert_eq!(answer.status, 413, "{:?}: {}", house.kind, answer.text());
    assert_eq!(answer.json()["detail"], "request body too large");
    let (kind, body) = form(&[("wheel", Some("big-1-py3-none-any.whl"), &vec![0; MAX_WHEEL_MB << 21])]);
    let answer = house.client().request("POST", "/wheels", &[("Content-Type", &kind)], &body);
    assert_eq!(answer.status, 413, "{:?}: {}", house.kind, answer.text());
    assert_eq!(house.client().get("/runs").status, 200);
}

/// The proxy keeps its connections to the gateway, and none of them is closed under a request.
fn connections_are_used_again(house: &House) {
    let mut connection = Connection::open(house.client().address);
    let mut ask = |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n");
        connection.send(head.as_bytes()).unwrap();
        assert_eq!(connection.receive().unwrap().status, 200, "{path}");
    };
    ask("/health");
    let before = connections_so_far(house.cluster.address);
    for turn in 0..50 {
        ask(["/health", "/runs", "/workers"][turn % 3]);
    }
    let made = connections_so_far(house.cluster.address) - before;
    assert!(made <= 1, "{:?}: {made} new connections for 50 requests", house.kind);
}

/// Connections to a port of this machine, with those that were closed within the last minute.
fn connections_so_far(address: SocketAddr) -> usize {
    let own = format!(":{:04X} ", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let ends = |line: &str, end| line.split_whitespace().nth(end).is_some_and(|a| own.trim() == &a[8..]);
    // The closing side alone remembers; of an open connection both ends are here.
    let mut clients: Vec<&str> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let other = match (ends(line, 1), ends(line, 2)) {
                (true, _) => 2,
                (_, true) => 1,
                _ => return None,
            };
            line.split_whitespace().nth(other).filter(|address| *address != "00000000:0000")
        })
        .collect();
    clients.sort_unstable();
    clients.dedup();
    clients.len()
}

fn the_client_is_known(house: &mut House) {
    let scheme = if house.kind == Kind::Caddy { "http" } else { "https" };
    let forged = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil\r\n";
    for (id, headers) in [
        ("plain-1", ""),
        ("forged-1", forged),
        // What a client says of its connection must not remove what the proxy says of the client.
        ("hidden-1", "Connection: keep-alive, X-Forwarded-For, X-Forwarded-Proto\r\n"),
    ] {
        let answer = house.ask("GET /runs", &format!("X-Request-ID: {id}\r\n{headers}"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-request-id"), Some(id));
        let line = house.logged(id);
        assert!(line.contains(&CLIENT.to_string()), "{:?}: {line}", house.kind);
    }
    let wheel = WheelFile::new("seen", "1");
    let parts = [("tags", None, &b"cpu"[..]), ("wheel", Some(&*wheel.file_name()), &wheel.build())];
    let (content_type, body) = form(&parts);
    let mut connection = Connection::open_from(CLIENT, house.client().address);
    let host = house.client().address;
    let head = format!(
        "POST /wheels HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n{forged}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    connection.send(&[head.as_bytes(), &body].concat()).unwrap();
    assert_eq!(connection.receive().unwrap().status, 200);
    let history = house.client().get_json("/wheels/history");
    let source: &Value = &history[0]["source"];
    assert_eq!(source["remote_addr"], CLIENT.to_string(), "{history}");
    assert_eq!((&source["scheme"], &source["host"]), (&json!(scheme), &json!(host.to_string())));
}

/// A redirect names neither scheme nor host, so the client stays where it is: behind the proxy, and on TLS.
fn redirects_stay(house: &House) {
    let answer = house.ask("GET /runs/?limit=1", "");
    assert_eq!((answer.status, answer.header("location")), (307, Some("/runs?limit=1")));
    // A page of the proxy's own host may send forms, another may not.
    let answer_to_form_of = |origin: &str| {
        let (content_type, body) = form(&[("flow_name", None, b"main")]);
        let headers = [("Content-Type", content_type.as_str()), ("Origin", origin)];
        house.client().request("POST", "/runs/yaml", &headers, &body).status
    };
    assert_eq!(answer_to_form_of(&format!("https://{}", house.client().address)), 422);
    assert_eq!(answer_to_form_of("https://evil.example"), 403);
}
