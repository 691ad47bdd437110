//! Requests to the gateway over keep-alive connections, as a program would send them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use pyoco_server::model::clock;
use pyoco_server::model::json;
use pyoco_server::model::run::{RunSnapshot, RunStatus};
use uuid::Uuid;

use crate::measure::{CLIENTS, row};
use crate::setup::Setup;

pub fn run(setup: &Setup) -> Result<(), Box<dyn std::error::Error>> {
    let gateway = setup.gateway()?;
    let address = gateway.local_addr();
    wait_ready(address);
    for clients in CLIENTS {
        row("GET /health", clients, |_| {
            let mut http = Http::connect(address);
            move |_| http.get("/health") == 200
        });
    }
    for (runs, more) in [(1_000, 1_000), (10_000, 9_000)] {
        let ids = fill(setup, more)?;
        wait_listed(address, runs);
        for clients in CLIENTS {
            row(&format!("GET /runs, {runs} runs"), clients, |_| {
                let mut http = Http::connect(address);
                move |_| http.get("/runs") == 200
            });
        }
        row(&format!("GET /runs?status=FAILED, {runs} runs"), 1, |_| {
            let mut http = Http::connect(address);
            move |_| http.get("/runs?status=FAILED") == 200
        });
        for clients in CLIENTS {
            row(&format!("GET /runs/{{id}}, {runs} runs"), clients, |client| {
                let (mut http, ids) = (Http::connect(address), ids.clone());
                move |n| http.get(&format!("/runs/{}", ids[(client * 97 + n as usize) % ids.len()])) == 200
            });
        }
    }
    for clients in CLIENTS {
        row("POST /runs", clients, |_| {
            let mut http = Http::connect(address);
            // A tag that nobody serves: what is measured is the submit.
            move |_| http.post("/runs", r#"{"flow_name":"bench","tag":"nobody"}"#).0 == 200
        });
    }
    gateway.stop(std::time::Duration::from_secs(2));
    Ok(())
}

/// A keep-alive connection.
pub struct Http {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Http {
    pub fn connect(address: SocketAddr) -> Http {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_nodelay(true).expect("a TCP socket takes it");
        Http { stream: BufReader::new(stream), host: address.to_string() }
    }

    pub fn get(&mut self, path: &str) -> u16 {
        let host = &self.host;
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).0
    }

    pub fn get_text(&mut self, path: &str) -> (u16, String) {
        let host = &self.host;
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    pub fn post(&mut self, path: &str, body: &str) -> (u16, String) {
        let (host, length) = (&self.host, body.len());
        self.exchange(&format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    pub fn post_form(&mut self, path: &str, body: &str) -> (u16, String) {
        let (host, length) = (&self.host, body.len());
        self.exchange(&format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=XX\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn exchange(&mut self, request: &str) -> (u16, String) {
        self.stream.get_mut().write_all(request.as_bytes()).expect("the gateway reads");
        let mut status = 0;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("the gateway answers");
            if status == 0 {
                status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(1);
            } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim_end().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the whole body comes");
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

pub fn wait_ready(address: SocketAddr) {
    while Http::connect(address).get("/readyz") != 200 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Puts runs that have ended straight into the bucket.
pub fn fill(setup: &Setup, count: usize) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let ids: Vec<String> = (0..count).map(|_| Uuid::new_v4().to_string()).collect();
    std::thread::scope(|scope| {
        let writers: Vec<_> = ids
            .chunks(count.div_ceil(16))
            .map(|chunk| {
                let kv = setup.bus.runs();
                scope.spawn(move || {
                    for id in chunk {
                        let now = clock::now();
                        let mut run = RunSnapshot::pending(id.clone(), "main".into(), "default".into(), now);
                        run.params.insert("n".into(), 1.into());
                        run.finish(RunStatus::Completed, None, now);
                        let document = json::to_wire(&run).expect("a snapshot is JSON");
                        kv.put(id, &document).expect("NATS takes it");
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|w| w.join().expect("a writer ended"));
    });
    Ok(ids)
}

pub fn wait_listed(address: SocketAddr, runs: usize) {
    let mut http = Http::connect(address);
    let mut seen = 0;
    while seen < runs {
        seen = 0;
        let mut cursor = String::new();
        loop {
            let (_, body) = http.get_text(&format!("/runs?limit=200&cursor={cursor}"));
            let page: serde_json::Value = serde_json::from_str(&body).expect("a page is JSON");
            seen += page["items"].as_array().map_or(0, Vec::len);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
    }
}
