//! The fixed set of connections to the handlers, and the one thread that opens them.
//!
//! Invariant: connections in the pool, leased, and counted as `missing` are always `size` together;
//! one that has left the pool, for a long answer or an upload, is none of these any more.
//! They are opened one after the other, each proven by an answered request before the next is
//! tried, because tiny_http loses connections that arrive in a burst.

use std::any::Any;
use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::answer::{self, Answer, Framing};
use super::client::is_retry;
use super::head::Admitted;
use crate::thread::{StopSignal, is_stopped};

/// The request that proves a connection. No client can send it: a client's target starts with `/`.
pub const PROBE: (&str, &str) = ("OPTIONS", "*");
/// One read from a handler; an answer's head must fit.
const BUFFER_BYTES: usize = 16 * 1024;
/// Wait after a failed attempt to open a connection: first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A connection to the handlers.
pub struct Link {
    pub stream: UnixStream,
    /// Kept as long as the connection: what is behind it lives on while anybody is connected.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Opens one connection to the handlers.
pub type Connect = Arc<dyn Fn() -> io::Result<Link> + Send + Sync>;

/// How long things may take behind the edge.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamDeadlines {
    /// For an answer to begin, and for each silence within one.
    pub answer: Duration,
    /// For a free connection.
    pub checkout: Duration,
    /// For opening and proving one connection.
    pub probe: Duration,
}

/// The pool; see the module.
pub struct Pool {
    connect: Connect,
    deadlines: UpstreamDeadlines,
    /// Whoever ends a lease and the opener write; whoever has a request reads.
    idle: (Sender<Upstream>, Receiver<Upstream>),
    missing: AtomicUsize,
    /// Whoever raises `missing` writes, the opener reads; one waiting kick is enough.
    kick: (Sender<()>, Receiver<()>),
    live: Arc<Live>,
    /// Ends waits for a connection when the edge stops hard.
    stop: StopSignal,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum NoUpstream {
    /// None became free in time.
    Busy,
    Stopped,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The connection ended before the first byte of an answer.
    Closed,
    /// It ended later, or what came is no answer.
    Broken,
    /// Nothing came in time.
    TimedOut,
}

/// All open connections, so that a hard stop can end what waits on them.
#[derive(Default)]
struct Live {
    next_id: AtomicU64,
    closed: AtomicBool,
    streams: Mutex<HashMap<u64, Arc<UnixStream>>>,
}

/// One connection to the handlers with its buffer.
pub struct Upstream {
    id: u64,
    /// Shared with the register of live connections.
    pub stream: Arc<UnixStream>,
    live: Arc<Live>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    _keep: Box<dyn Any + Send + Sync>,
}

/// A connection taken out of the pool. Unless it is given back, another one is opened in its place.
pub struct Lease<'p> {
    upstream: Option<Upstream>,
    pool: &'p Pool,
    /// Another connection has been asked for in its place already.
    replaced: bool,
}

impl Pool {
    /// Opens `size` connections, one after the other.
    ///
    /// # Errors
    /// When one of them cannot be opened or is not answered.
    pub fn open(
        connect: Connect,
        size: usize,
        deadlines: UpstreamDeadlines,
        stop: StopSignal,
    ) -> io::Result<Pool> {
        let pool = Pool {
            connect,
            deadlines,
            idle: bounded(size),
            missing: AtomicUsize::new(0),
            kick: bounded(1),
            live: Arc::default(),
            stop,
        };
        for _ in 0..size {
            pool.put(pool.open_one()?);
        }
        Ok(pool)
    }

    /// Takes a connection, waiting for one if need be.
    ///
    /// # Errors
    /// See [`NoUpstream`].
    pub fn checkout(&self) -> Result<Lease<'_>, NoUpstream> {
        let upstream = match self.idle.1.try_recv() {
            Ok(upstream) => upstream,
            Err(_) => select! {
                recv(self.idle.1) -> upstream => upstream.map_err(|_| NoUpstream::Stopped)?,
                recv(self.stop) -> _ => return Err(NoUpstream::Stopped),
                default(self.deadlines.checkout) => return Err(NoUpstream::Busy),
            },
        };
        Ok(Lease { upstream: Some(upstream), pool: self, replaced: false })
    }

    /// The life of the opener thread: replaces what is missing until told to stop.
    pub fn keep_full(&self, stop: &StopSignal) {
        let mut back_off = BACK_OFF.0;
        while !is_stopped(stop) {
            let wait = if self.missing.load(Ordering::Acquire) == 0 {
                None
            } else {
                match self.open_one() {
                    Ok(upstream) => {
                        self.missing.fetch_sub(1, Ordering::AcqRel);
                        self.put(upstream);
                        back_off = BACK_OFF.0;
                        continue;
                    }
                    Err(error) => {
                        log::warn!(error:% = error; "cannot open a connection to the handlers");
                        let wait = back_off;
                        back_off = (back_off * 2).min(BACK_OFF.1);
                        Some(wait)
                    }
                }
            };
            match wait {
                Some(wait) => select! { recv(stop) -> _ => return, default(wait) => {} },
                None => select! { recv(stop) -> _ => return, recv(self.kick.1) -> _ => {} },
            }
        }
    }

    /// Ends every connection, now and from now on; whoever reads or writes on one gets an error.
    pub fn close(&self) {
        self.live.closed.store(true, Ordering::SeqCst);
        for stream in self.live.lock().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // What is idle would otherwise keep its descriptors until the pool goes.
        while self.idle.1.try_recv().is_ok() {}
    }

    fn open_one(&self) -> io::Result<Upstream> {
        let Link { stream, keep } = (self.connect)()?;
        stream.set_read_timeout(Some(self.deadlines.probe))?;
        stream.set_write_timeout(Some(self.deadlines.answer))?;
        let mut upstream = Upstream::new(stream, keep, Arc::clone(&self.live))?;
        upstream.probe(self.deadlines.probe)?;
        upstream.stream.set_read_timeout(Some(self.deadlines.answer))?;
        Ok(upstream)
    }

    fn put(&self, upstream: Upstream) {
        // There is a place for each connection, so this neither blocks nor fails.
        let _ = self.idle.0.try_send(upstream);
    }

    fn replace(&self) {
        self.missing.fetch_add(1, Ordering::AcqRel);
        let _ = self.kick.0.try_send(());
    }
}

impl Lease<'_> {
    pub fn upstream(&mut self) -> &mut Upstream {
        self.upstream.as_mut().expect("a lease holds its connection until it is consumed")
    }

    /// Back into the pool: the last answer was read to its end and the connection stays open.
    pub fn give_back(mut self) {
        if self.replaced {
            return;
        }
        if let Some(upstream) = self.upstream.take() {
            if upstream.start == upstream.end {
                self.pool.put(upstream);
            } else {
                // Bytes after the end of an answer would become the next client's answer.
                log::error!("bytes after an answer; the connection to the handlers is replaced");
                self.pool.replace();
            }
        }
    }

    /// Out of the pool from now on, for a request that takes long; another one is opened at once,
    /// and this one ends with its lease.
    pub fn leave(&mut self) {
        if !self.replaced {
            self.replaced = true;
            self.pool.replace();
        }
    }

    /// Out of the pool for good, for an answer that takes long; another one is opened at once.
    pub fn detach(mut self) -> Upstream {
        self.leave();
        self.upstream.take().expect("a lease holds its connection until it is consumed")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.upstream.take().is_some() {
            self.leave();
        }
    }
}

impl Upstream {
    fn new(
        stream: UnixStream,
        keep: Box<dyn Any + Send + Sync>,
        live: Arc<Live>,
    ) -> io::Result<Upstream> {
        let stream = Arc::new(stream);
        let id = live.next_id.fetch_add(1, Ordering::Relaxed);
        live.lock().insert(id, Arc::clone(&stream));
        let upstream = Upstream {
            id,
            stream,
            live,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            _keep: keep,
        };
        // Registered first, looked at afterwards: a close in between is seen by one of the two.
        if upstream.live.closed.load(Ordering::SeqCst) {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(upstream)
    }

    /// Sends a request in as few writes as the socket takes.
    ///
    /// # Errors
    /// When the connection is dead, or nobody reads at the other end.
    pub fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        (self.start, self.end) = (0, 0);
        let mut parts = [IoSlice::new(head), IoSlice::new(body)];
        let mut parts = &mut parts[..];
        let mut left = head.len() + body.len();
        while left > 0 {
            match (&*self.stream).write_vectored(parts) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    left -= count;
                    IoSlice::advance_slices(&mut parts, count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends one more piece of a request whose head was sent before.
    ///
    /// # Errors
    /// As [`Upstream::send`].
    pub fn send_more(&self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            match (&*self.stream).write(piece) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => piece = &piece[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the head of the answer to `request` and writes the client's into `out`. `closing` is
    /// looked at when the head is there, which may be long after the request was sent.
    ///
    /// # Errors
    /// See [`NoAnswer`].
    pub fn read_answer(
        &mut self,
        request: &Admitted,
        closing: &AtomicBool,
        deadline: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Answer, NoAnswer> {
        let until = Instant::now() + deadline;
        let mut begun = self.start < self.end;
        loop {
            // What came while the request was still being sent is looked at first.
            if !begun {
                match self.fill() {
                    Ok(0) if self.start == self.end => return Err(NoAnswer::Closed),
                    Ok(0) => return Err(NoAnswer::Broken),
                    Ok(_) => {}
                    Err(error) if is_retry(&error) => {}
                    Err(_) if self.start == self.end => return Err(NoAnswer::Closed),
                    Err(_) => return Err(NoAnswer::Broken),
                }
            }
            if request.streamed
                && let Some(length) = answer::interim(self.buffered())
            {
                // A client that did not wait for leave has sent everything by now.
                self.consume(length);
            }
            begun = false;
            let closing = closing.load(Ordering::SeqCst);
            match answer::read(self.buffered(), request, closing, out) {
                Ok(Some(answer)) => {
                    self.consume(answer.length);
                    return Ok(answer);
                }
                Ok(None) if self.end == self.buffer.len() => return Err(NoAnswer::Broken),
                Ok(None) => {}
                Err(_) => return Err(NoAnswer::Broken),
            }
            if Instant::now() >= until {
                return Err(NoAnswer::TimedOut);
            }
        }
    }

    /// Bytes read and not consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Consumes bytes of [`Upstream::buffered`].
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// One read into what is free of the buffer.
    ///
    /// # Errors
    /// As `read`; `WouldBlock` when the deadline for answers has passed.
    pub fn fill(&mut self) -> io::Result<usize> {
        let count = (&*self.stream).read(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }

    fn probe(&mut self, deadline: Duration) -> io::Result<()> {
        let request = Admitted {
            keep_alive: true,
            version_1_0: false,
            body_length: 0,
            streamed: false,
            expects_continue: false,
            head_only: false,
            repeatable: false,
            request_id: String::new(),
        };
        self.send(
            format!("{} {} HTTP/1.1\r\nHost: edge\r\n\r\n", PROBE.0, PROBE.1).as_bytes(),
            b"",
        )?;
        match self.read_answer(&request, &AtomicBool::new(false), deadline, &mut Vec::new()) {
            Ok(answer) if answer.framing == Framing::Length(0) && answer.reusable => Ok(()),
            Ok(_) => Err(io::Error::other("the handlers gave a wrong answer to a probe")),
            Err(NoAnswer::TimedOut) => {
                Err(io::Error::new(ErrorKind::TimedOut, "no handler became free to answer a probe"))
            }
            Err(_) => Err(io::Error::new(
                ErrorKind::ConnectionAborted,
                "the connection was closed before it was used",
            )),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // The handler's side learns of it through this, the register holds another reference.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.live.lock().remove(&self.id);
    }
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<UnixStream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
