//! HTTP by hand over a TCP stream: a friendly [`Client`], and a raw [`Connection`] for tests that must send
//! what no client library would.
//!
//! What a client says of runs, wheels and forms is in `runs`, `registry` and `forms`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;

use super::runs::RUN_DEADLINE;
use super::wait::{PATIENCE, eventually};

/// Longest wait for the next bytes of an answer, and for the peer to take more of a request.
const IO_DEADLINE: Duration = Duration::from_secs(20);

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
    /// The socket, with its deadlines set.
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects; each read and each write has a deadline, so that no test hangs.
    pub fn open(address: SocketAddr) -> Connection {
        Connection::open_within(address, IO_DEADLINE)
    }

    /// The same with a deadline of one's own.
    pub fn open_within(address: SocketAddr, deadline: Duration) -> Connection {
        Connection::try_open(address, deadline).expect("cannot connect")
    }

    fn try_open(address: SocketAddr, deadline: Duration) -> io::Result<Connection> {
        Ok(Connection::on(TcpStream::connect_timeout(&address, deadline)?, deadline))
    }

    /// Connects from an address of one's own choice; on loopback there are millions.
    pub fn open_from(source: Ipv4Addr, address: SocketAddr) -> Connection {
        let socket =
            rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("cannot make a socket");
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0)).expect("cannot bind");
        rustix::net::connect(&socket, &address).expect("cannot connect");
        Connection::on(TcpStream::from(socket), IO_DEADLINE)
    }

    fn on(stream: TcpStream, deadline: Duration) -> Connection {
        stream.set_read_timeout(Some(deadline)).expect("cannot set the read timeout");
        stream.set_write_timeout(Some(deadline)).expect("cannot set the write timeout");
        stream.set_nodelay(true).expect("cannot set TCP_NODELAY");
        Connection { stream, unread: Vec::new() }
    }

    /// Sends bytes as they are. The peer may have closed already: that is for the caller to see.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
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
            let mut body = Vec::new();
            while let Some(chunk) = self.take_chunk()? {
                body.extend(chunk);
            }
            body
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| io::Error::other("bad content-length"))?;
            self.take(length)?
        } else {
            self.take_rest()?
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

    /// Everything up to the end of the connection.
    pub fn take_rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.unread);
        self.stream.read_to_end(&mut rest).map(|_| rest)
    }

    /// Whether the peer has closed the connection: waits for the next byte or the end. Silence up to the
    /// deadline is no end.
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty()
            && self
                .read_more()
                .is_err_and(|error| !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// The next chunk of a chunked body; `None` for the last.
    pub fn take_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.take_until(b"\r\n")?;
        let text = String::from_utf8_lossy(&line);
        let size = text.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16)
            .map_err(|_| io::Error::other(format!("bad chunk size {text:?}")))?;
        let chunk = self.take(size)?;
        self.take(2)?;
        Ok((size > 0).then_some(chunk))
    }

    /// Bytes that have arrived at the peer's socket on this machine and that it has not read.
    pub fn unread_by_peer(&self) -> u64 {
        let port = |address: io::Result<SocketAddr>| address.expect("connected").port();
        let (ours, theirs) = (port(self.stream.local_addr()), port(self.stream.peer_addr()));
        let ends = format!(":{theirs:04X} 0100007F:{ours:04X} ");
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel lists sockets");
        let line = table.lines().find(|line| line.contains(&ends)).expect("the peer's socket");
        let queues = line.split_whitespace().nth(4).expect("its queues");
        u64::from_str_radix(queues.split(':').nth(1).expect("two queues"), 16).expect("a number")
    }

    /// Reads once from the socket; an end is an error.
    pub fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

/// Asks one server, each time on a connection of its own, with or without an API key.
#[derive(Debug, Clone)]
pub struct Client {
    pub address: SocketAddr,
    key: Option<String>,
    /// The longest that `ended` waits for a run.
    pub(super) run_deadline: Duration,
}

impl Client {
    /// Asks the server at this address, without a key.
    pub fn to(address: SocketAddr) -> Client {
        Client { address, key: None, run_deadline: RUN_DEADLINE }
    }

    /// The same server, asked with this API key.
    pub fn as_key(&self, key: &str) -> Client {
        Client { key: Some(key.to_owned()), ..self.clone() }
    }

    /// A client of its own, which does not borrow the cluster.
    pub fn client(&self) -> Client {
        self.clone()
    }

    /// The same with another deadline for the end of a run.
    pub fn with_run_deadline(self, run_deadline: Duration) -> Client {
        Client { run_deadline, ..self }
    }

    /// `http://<address>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let answer = self.try_request(method, path, headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: no answer: {error}"))
    }

    /// The same to a server that may be away.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let key = self.key.as_deref().map(|key| ("X-API-Key", key));
        let headers: Vec<(&str, &str)> = key.into_iter().chain(headers.iter().copied()).collect();
        try_request(self.address, method, path, &headers, body)
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// GET that must be answered with 200 and JSON.
    pub fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// POST of a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send_json("POST", path, &body.to_string())
    }

    /// A request whose body says that it is JSON.
    pub fn send_json(&self, method: &str, path: &str, body: &str) -> Response {
        self.request(method, path, &[("Content-Type", "application/json")], body.as_bytes())
    }

    pub fn post_nothing(&self, path: &str) -> Response {
        self.request("POST", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path, &[], b"")
    }

    /// Opens a stream that must be granted; its head has been read.
    pub fn open_stream(&self, path: &str) -> Connection {
        self.stream_with(path, "").1
    }

    /// The same with further header lines, each with its line end; the head comes along.
    pub fn stream_with(&self, path: &str, headers: &str) -> (Vec<u8>, Connection) {
        let mut connection = Connection::open(self.address);
        let key = self.key.as_deref().map(|key| format!("X-API-Key: {key}\r\n"));
        let headers = format!("{}{headers}", key.unwrap_or_default());
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
        connection.send(head.as_bytes()).expect("the server takes the request");
        let head = connection.take_until(b"\r\n\r\n").expect("the server answers");
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
        (head, connection)
    }

    /// Waits until a GET is answered with this status.
    pub fn wait_answer(&self, path: &str, status: u16) -> Response {
        eventually(PATIENCE, &format!("{status} for {path}"), || {
            Some(self.get(path)).filter(|answer| answer.status == status)
        })
    }

    /// Waits until our gateway is ready.
    pub fn wait_ready(&self) {
        self.wait_answer("/readyz", 200);
    }

    /// Waits until what our gateway knows of runs and workers is live; it may be ready a moment earlier.
    pub fn wait_live(&self) {
        eventually(PATIENCE, "the gateway to follow runs and workers", || {
            (self.metric("pyoco_view_live") == 1.0).then_some(())
        });
    }

    /// Waits until our gateway lists a worker.
    pub fn wait_worker(&self, worker_id: &str) {
        eventually(PATIENCE, &format!("worker {worker_id} in the list"), || {
            let answer = self.get("/workers");
            (answer.status == 200 && answer.text().contains(worker_id)).then_some(())
        });
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
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
    let answer = try_request(address, method, path, headers, body);
    answer.unwrap_or_else(|error| panic!("{method} {path}: no answer: {error}"))
}

fn try_request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" || method == "PATCH" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut connection = Connection::try_open(address, IO_DEADLINE)?;
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    // A server may answer and close before it has read everything; its answer is what counts.
    let sent = connection.send(&bytes);
    let answer = if method == "HEAD" { connection.receive_head() } else { connection.receive() };
    answer.map_err(|error| io::Error::new(error.kind(), format!("{error} (sent: {sent:?})")))
}
