//! A server with a small handler, and a client that writes raw bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use pyoco_server::http::error::{BODY_TOO_LARGE, Condition};
use pyoco_server::http::{
    Access, Application, Conduct, HttpServer, HttpSettings, Method, Reply, Request, Transfer,
};

use crate::uploads;

/// Longer than anything here takes; what passes it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Body limit of the test routes; `/big` takes more.
pub const BODY_LIMIT: u64 = 100_000;

/// Body limit of the routes that begin with `/upload`.
pub const UPLOAD_LIMIT: u64 = 300_000_000;

/// What is answered to more than that.
const UPLOAD_TOO_LARGE: Condition = Condition::bad_input(413, "upload too large", "send less in one request");

/// Tests of one process that measure the process itself (threads, memory) run alone.
static ALONE: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What the test handler and its test tell each other.
pub struct Site {
    pub server: Option<HttpServer>,
    pub address: SocketAddr,
    /// How many requests have reached a handler.
    pub handled: Arc<AtomicUsize>,
    /// Lets one `/slow` request go on.
    pub release: Sender<()>,
    /// Told when a `/slow` request has begun.
    pub slow_begun: Receiver<()>,
    /// Text for `/events`, each an event; dropped, the stream ends.
    pub events: Option<Sender<String>>,
    /// Told how each stream ended: whether its writer still took data.
    pub stream_ended: Receiver<bool>,
    /// Told how each upload ended: how many bytes, or why not.
    pub uploaded: Receiver<Result<u64, String>>,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.events.take();
    }
}

/// Settings with deadlines that tests can wait for, four permits.
pub fn quick() -> HttpSettings {
    HttpSettings {
        threads: 4,
        max_streams: 64,
        head_deadline: Duration::from_millis(700),
        body_deadline: Duration::from_millis(700),
        idle_deadline: Duration::from_millis(1500),
        answer_deadline: Duration::from_secs(5),
        write_deadline: Duration::from_secs(2),
        permit_patience: Duration::from_secs(2),
        ..HttpSettings::default()
    }
}

/// Answers with a closure, and treats a request by its path.
struct TestService<F> {
    handler: F,
    hooks: Hooks,
}

/// Hears of an answer.
type Answered = Box<dyn Fn(&Access<'_>) + Send + Sync>;
/// Hears the status of a refusal.
type Refused = Box<dyn Fn(u16) + Send + Sync>;

/// What a test wants to hear.
#[derive(Default)]
pub struct Hooks {
    pub answered: Option<Answered>,
    pub refused: Option<Refused>,
}

impl<F: Fn(&mut Request) -> Reply + Send + Sync + 'static> Application for TestService<F> {
    type Target = ();

    fn find(&self, _: &Method, path: &str, _: Option<&str>) -> ((), Conduct) {
        let (transfer, max_body, too_large) = match path {
            "/big" => (Transfer::Whole, 8 << 20, &BODY_TOO_LARGE),
            "/probe" => (Transfer::Immediate, BODY_LIMIT, &BODY_TOO_LARGE),
            "/events" => (Transfer::Stream, BODY_LIMIT, &BODY_TOO_LARGE),
            _ if path.starts_with("/upload") => (Transfer::Upload, UPLOAD_LIMIT, &UPLOAD_TOO_LARGE),
            _ => (Transfer::Whole, BODY_LIMIT, &BODY_TOO_LARGE),
        };
        ((), Conduct { transfer, max_body, too_large })
    }

    fn answer(&self, request: &mut Request, (): &()) -> Reply {
        (self.handler)(request)
    }

    fn answered(&self, access: &Access<'_>, (): &()) {
        if let Some(answered) = &self.hooks.answered {
            answered(access);
        }
    }

    fn refused(&self, status: u16) {
        if let Some(refused) = &self.hooks.refused {
            refused(status);
        }
    }
}

/// Starts a server with the test handler.
pub fn site(settings: HttpSettings) -> Site {
    site_with(settings, Hooks::default())
}

/// The same, and tells `hooks` of each answer.
pub fn site_with(settings: HttpSettings, hooks: Hooks) -> Site {
    let alone = alone();
    let handled = Arc::new(AtomicUsize::new(0));
    let (release, released) = bounded::<()>(1000);
    let (begin, slow_begun) = unbounded();
    let (events, feed) = bounded::<String>(1000);
    let (end, stream_ended) = unbounded();
    let (upload_end, uploaded) = unbounded();
    let count = Arc::clone(&handled);
    let handler = move |request: &mut Request| {
        count.fetch_add(1, Ordering::SeqCst);
        match request.path() {
            "/panic" => panic!("as the test wishes"),
            "/unread" => Reply::text(200, "did not look"),
            "/slow" => {
                begin.send(()).unwrap();
                let _ = released.recv_timeout(PATIENCE);
                Reply::text(200, "slow")
            }
            "/events" => {
                let (feed, end) = (feed.clone(), end.clone());
                Reply::stream(200, "text/event-stream", move |out| {
                    let result = feed.iter().try_for_each(|event| {
                        write!(out, "data: {event}\n\n")?;
                        out.flush()
                    });
                    let _ = end.send(result.is_ok());
                    result
                })
            }
            "/endless" => {
                let end = end.clone();
                Reply::stream(200, "application/octet-stream", move |out| {
                    let error = loop {
                        if let Err(error) = out.write_all(&[b'x'; 1024]) {
                            break error;
                        }
                    };
                    let _ = end.send(false);
                    Err(error)
                })
            }
            "/broken" => Reply::stream(200, "text/plain", |out| {
                out.write_all(b"half")?;
                out.flush()?;
                Err(io::Error::other("as the test wishes"))
            }),
            "/broken-download" => Reply::download(200, "text/plain", 100, |out| out.write_all(b"half")),
            "/panic-stream" => Reply::stream(200, "text/plain", |_| panic!("as the test wishes")),
            "/download" => Reply::download(200, "application/octet-stream", 3_000_000, |out| {
                (0..3000).try_for_each(|_| out.write_all(&[b'd'; 1000]))
            }),
            "/slow-download" => Reply::download(200, "text/plain", 20, |out| {
                (0..20).try_for_each(|i| {
                    std::thread::sleep(Duration::from_millis(100));
                    write!(out, "{}", i % 10)?;
                    out.flush()
                })
            }),
            "/bytes" => {
                let size: usize = request.query().unwrap_or("0").parse().unwrap();
                Reply::bytes(200, "application/octet-stream", vec![b'b'; size])
            }
            "/empty" => Reply::empty(204),
            path if path.starts_with("/upload") => {
                if path == "/upload-held" {
                    begin.send(()).unwrap();
                    let _ = released.recv_timeout(PATIENCE);
                }
                uploads::handle(request, &upload_end)
            }
            _ => echo(request),
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = HttpServer::start(listener, settings, TestService { handler, hooks }).unwrap();
    let address = server.local_addr();
    Site {
        server: Some(server),
        address,
        handled,
        release,
        slow_begun,
        events: Some(events),
        stream_ended,
        uploaded,
        _alone: alone,
    }
}

fn echo(request: &mut Request) -> Reply {
    let mut text = format!("{} {}?{}\n", request.method(), request.path(), request.query().unwrap_or(""));
    text.push_str(&format!("peer={} id={}\n", request.peer(), request.request_id()));
    text.push_str(&format!("host={} scheme={}\n", request.host().unwrap_or("-"), request.scheme()));
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value);
        text.push_str(&format!("{}: {value}\n", name.to_ascii_lowercase()));
    }
    match request.body() {
        body if body.len() > 1000 => text.push_str(&format!("body {} bytes", body.len())),
        body => text.push_str(&String::from_utf8_lossy(body)),
    }
    Reply::text(200, text)
}

/// An answer as it was read from the wire.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Checks that this is one of the floor's own refusals, in full.
    pub fn assert_refused(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert!(json["detail"].is_string() && json["hint"].is_string(), "{json}");
        if status < 500 || status == 501 || status == 505 {
            assert_eq!(json["err_id"], "ERR-PYOCO-0002", "{json}");
            assert_eq!(json["msg_id"], "MSG-PYOCO-0002", "{json}");
        }
        assert_eq!(self.header("connection"), Some("close"));
        assert!(self.header("x-request-id").is_some_and(|id| !id.is_empty()));
        assert_eq!(self.header("retry-after").is_some(), status == 503);
    }
}

/// A connection that writes and reads raw bytes, with a deadline on each.
pub struct Wire {
    pub stream: TcpStream,
    pub buffer: Vec<u8>,
}

impl Site {
    pub fn wire(&self) -> Wire {
        Wire::to(self.address)
    }

    pub fn get(&self, target: &str) -> Answer {
        let mut wire = self.wire();
        wire.send(&format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"));
        wire.answer()
    }

    /// Sends bytes on a new connection and reads one answer.
    pub fn ask(&self, bytes: &str) -> Answer {
        let mut wire = self.wire();
        wire.send(bytes);
        wire.answer()
    }

    pub fn count(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }

    pub fn assert_alive(&self) {
        assert_eq!(self.get("/alive").status, 200);
    }
}

impl Wire {
    pub fn to(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads one answer; panics when none comes.
    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).unwrap()
    }

    pub fn try_answer(&mut self, to_head: bool) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more()?;
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status: u16 = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        if to_head || status == 100 || status == 204 {
            return Ok(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.buffer.len() < length {
                self.read_more()?;
            }
            answer.body = self.buffer.drain(..length).collect();
        } else if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.try_chunk()? {
                answer.body.extend(chunk);
            }
        } else {
            self.read_to_end()?;
            answer.body = std::mem::take(&mut self.buffer);
        }
        Ok(answer)
    }

    /// One chunk of a chunked body; `None` for the last.
    pub fn try_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break String::from_utf8(self.buffer.drain(..at + 2).collect()).unwrap();
            }
            self.read_more()?;
        };
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        while self.buffer.len() < size + 2 {
            self.read_more()?;
        }
        let mut chunk: Vec<u8> = self.buffer.drain(..size + 2).collect();
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    pub fn read_more(&mut self) -> io::Result<()> {
        let mut piece = [0; 65536];
        match self.stream.read(&mut piece)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }

    pub fn read_to_end(&mut self) -> io::Result<()> {
        self.stream.read_to_end(&mut self.buffer).map(drop)
    }

    /// Waits for the server to close; `false` if more data came first.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Bytes that have arrived at the server's socket and that it has not read.
    pub fn unread_by_server(&self) -> u64 {
        let (ours, theirs) =
            (self.stream.local_addr().unwrap().port(), self.stream.peer_addr().unwrap().port());
        let ends = format!(":{theirs:04X} 0100007F:{ours:04X} ");
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(&ends)).unwrap();
        let queues = line.split_whitespace().nth(4).unwrap();
        u64::from_str_radix(queues.split(':').nth(1).unwrap(), 16).unwrap()
    }

    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// Waits until `condition` holds, looking often; fails when it does not in time.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Set in the child of a test that measures or limits its process, and so needs one of its own.
const CHILD: &str = "PYOCO_TEST_CHILD";

/// Whether this is the child that runs the test `name` alone; else runs it and checks its success.
pub fn in_child(name: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    false
}

/// Threads of this process.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Resident memory of this process in KiB.
pub fn resident_kib() -> u64 {
    memory_kib("VmRSS:")
}

/// The most that it ever was.
pub fn peak_kib() -> u64 {
    memory_kib("VmHWM:")
}

fn memory_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Open descriptors of this process.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
