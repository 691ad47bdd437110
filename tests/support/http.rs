//! HTTP by hand over a TCP stream, for tests that must send what no client library would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for the next bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// One answer, taken apart.
#[derive(Debug, Clone)]
pub struct Response {
    /// 200, 404, …
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// Without framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the body when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.text()))
    }
}

/// A connection on which requests can be sent one after the other, or not be finished.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects; reads time out, so that no test hangs.
    pub fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect_timeout(&address, READ_TIMEOUT).expect("cannot connect");
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("cannot set the read timeout");
        stream.set_write_timeout(Some(READ_TIMEOUT)).expect("cannot set the write timeout");
        stream.set_nodelay(true).expect("cannot set TCP_NODELAY");
        Connection { stream, unread: Vec::new() }
    }

    /// Sends bytes as they are. The peer may have closed already: that is for the caller to see.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Reads one answer, framed by Content-Length, chunks or the end of the connection.
    pub fn receive(&mut self) -> io::Result<Response> {
        self.receive_answer_to(false)
    }

    /// Reads the answer to a HEAD request: it has no body, whatever its head says.
    pub fn receive_head(&mut self) -> io::Result<Response> {
        self.receive_answer_to(true)
    }

    fn receive_answer_to(&mut self, head_only: bool) -> io::Result<Response> {
        let head = self.take_until(b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no status line: {text:?}")))?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Response { status, headers, body: Vec::new() };
        if head_only || status < 200 || status == 204 || status == 304 {
            return Ok(response);
        }
        response.body = if response.header("transfer-encoding").is_some_and(|v| v == "chunked") {
            self.take_chunks()?
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| io::Error::other("bad content-length"))?;
            self.take(length)?
        } else {
            let mut rest = std::mem::take(&mut self.unread);
            self.stream.read_to_end(&mut rest)?;
            rest
        };
        Ok(response)
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.read_more()?;
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// Everything up to and including `mark`.
    pub fn take_until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(mark.len()).position(|window| window == mark) {
                return self.take(at + mark.len());
            }
            self.read_more()?;
        }
    }

    /// Whether the peer has closed the connection (waits for the next byte or the end).
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.read_more().is_err()
    }

    fn take_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_until(b"\r\n")?;
            let text = String::from_utf8_lossy(&line);
            let size = text.trim_end().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| io::Error::other(format!("bad chunk size {text:?}")))?;
            let chunk = self.take(size)?;
            self.take(2)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

/// One request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" || method == "PATCH" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut connection = Connection::open(address);
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    // A server may answer and close before it has read everything; its answer is what counts.
    let sent = connection.send(&bytes);
    let answer = if method == "HEAD" { connection.receive_head() } else { connection.receive() };
    answer.unwrap_or_else(|error| panic!("{method} {path}: no answer: {error} (sent: {sent:?})"))
}

/// GET.
pub fn get(address: SocketAddr, path: &str) -> Response {
    request(address, "GET", path, &[], b"")
}

/// POST with a JSON body.
pub fn post_json(address: SocketAddr, path: &str, body: &Value) -> Response {
    let headers = [("Content-Type", "application/json")];
    request(address, "POST", path, &headers, body.to_string().as_bytes())
}
