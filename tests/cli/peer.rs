//! Peers that are no gateway: sockets that answer what a test says, and end with its process.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::support::process::{Binary, Finished, run};
use crate::support::wait::PATIENCE;

/// A peer that reads a request from each connection, gives it the next of the answers, the last one again and
/// again, and closes.
pub struct Peer {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    pub fn start(answers: &[String]) -> Peer {
        let answers = answers.to_vec();
        let (listener, url) = listen();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let asked = requests.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                asked.lock().unwrap().push(read_request(&mut stream));
                let _ = stream.write_all(answers[number.min(answers.len() - 1)].as_bytes());
            }
        });
        Peer { url, requests }
    }

    /// Runs our client with this server to its end.
    pub fn client(&self, arguments: &[&str]) -> Finished {
        client(&[&["--server", &self.url], arguments].concat())
    }

    /// What it was asked, in lower case.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Runs our client to its end.
pub fn client(arguments: &[&str]) -> Finished {
    run(Binary::Client.command().args(arguments), b"", PATIENCE)
}

/// A socket that listens, and its URL.
pub fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// A peer that does to its only connection what it is told; its URL.
pub fn once(body: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let (listener, url) = listen();
    std::thread::spawn(move || body(listener.accept().unwrap().0));
    url
}

/// Head and body in lower case; it reads them whole, so that closing does not reset the connection under the
/// client.
pub fn read_request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
        let all = String::from_utf8_lossy(&text).to_ascii_lowercase();
        let Some((head, _)) = all.split_once("\r\n\r\n") else { continue };
        let length = head.split("content-length: ").nth(1).and_then(|t| t.lines().next());
        let length: usize = length.map_or(0, |t| t.parse().unwrap());
        if text.len() >= head.len() + 4 + length {
            break;
        }
    }
    String::from_utf8_lossy(&text).to_ascii_lowercase()
}

pub fn reply(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// A 307.
pub fn redirect(location: &str) -> String {
    format!("HTTP/1.1 307 X\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
