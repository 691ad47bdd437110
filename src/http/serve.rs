//! One request on a handler thread: from tiny_http's hands to the last byte of the answer.

use std::any::Any;
use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::body::Settled;
use super::reply::{Framing, ReplyBody, WriteBody, write_head};
use super::request::Request;
use super::stream::BodyWriter;
use super::{Handler, Reply};
use crate::http::edge::{BodyRules, Budget, PROBE};
use crate::model::limits::ABSORB_BYTES;
use crate::thread::ThreadSet;

/// A request that has been answered, for logs and metrics.
#[derive(Debug, Clone)]
pub struct Access {
    /// See [`Request::request_id`].
    pub request_id: String,
    /// See [`Request::method`].
    pub method: String,
    /// See [`Request::path`].
    pub path: String,
    /// See [`Request::peer`].
    pub peer: String,
    pub status: u16,
    /// From the request's arrival at a handler thread to the end of its answer.
    pub duration: Duration,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// The whole answer was handed on; else the client had gone or the handler failed midway.
    pub complete: bool,
}

/// Told of each request after its answer; it runs on the thread that answered.
pub type Observer = Arc<dyn Fn(&Access) + Send + Sync>;

/// What all handler threads share.
pub(super) struct Service {
    pub handler: Arc<dyn Handler>,
    pub body_rules: BodyRules,
    pub behind_proxy: bool,
    pub observer: Option<Observer>,
    /// Threads of streaming answers.
    pub streams: ThreadSet,
    /// Threads of uploads: more than there are places, since one that has given its place back
    /// still has its answer to write.
    pub uploads: ThreadSet,
    /// Places for uploads that are being handled.
    pub upload_places: Arc<Budget>,
}

/// What is known of an answer while it is written.
struct Exchange {
    access: Access,
    started: Instant,
    observer: Option<Observer>,
}

impl Service {
    /// Answers one request. Never panics, whatever the handler does.
    pub fn serve(&self, inner: tiny_http::Request) {
        // tiny_http answers 500 by itself when a request is dropped in here.
        if catch_unwind(AssertUnwindSafe(|| self.answer(inner))).is_err() {
            log::error!("answering a request panicked");
        }
    }

    fn answer(&self, inner: tiny_http::Request) {
        if inner.method().as_str() == PROBE.0 && inner.url() == PROBE.1 {
            let mut out = Vec::new();
            write_head(200, &[], "probe", Framing::Length(0), &mut out);
            let mut writer = inner.into_writer();
            let _ = writer.write_all(&out).and_then(|()| writer.flush());
            return;
        }
        let started = Instant::now();
        let mut request = Request::new(inner, self.behind_proxy);
        let rule = (self.body_rules)(request.method(), request.path());
        let reply = match request.settle_body(rule, self.behind_proxy) {
            Settled::Here => call(&*self.handler, &mut request),
            Settled::Coming => return self.take_in(request, None, started),
            Settled::TooLarge(Some(words)) => {
                let reply = Reply::json(413, format!(r#"{{"detail":"{words}"}}"#).into_bytes());
                return self.take_in(request, Some(reply), started);
            }
            Settled::TooLarge(None) => body_too_large(),
            Settled::Unannounced => length_required(),
            Settled::Unusable => {
                // Dropping the request would make tiny_http allocate as much as was announced, and
                // then take the rest of a body for a request. Losing one connection to a proxy that
                // does not keep its limits is the lesser harm.
                let request_id = request.request_id().to_owned();
                log::error!(request_id; "the proxy sent a body that cannot be read; raise its checks");
                std::mem::forget(request);
                return;
            }
        };
        let old = self.behind_proxy && request.is_http_1_0();
        let exchange = Exchange::new(&request, reply.status, started, &self.observer);
        self.send(request.into_inner().into_writer(), reply, exchange, old);
    }

    /// Answers a request whose body is still to come, on a thread of its own: with `reply`, or else
    /// what the handler says. A slow client, or a slow store, holds no thread of the pool.
    fn take_in(&self, request: Request, reply: Option<Reply>, started: Instant) {
        let (handler, places) = (Arc::clone(&self.handler), Arc::clone(&self.upload_places));
        let (observer, behind_proxy) = (self.observer.clone(), self.behind_proxy);
        let request_id = request.request_id().to_owned();
        let answer = move |mut request: Request, reply: Option<Reply>| {
            let mut place = places.empty();
            let reply = match reply {
                Some(reply) => reply,
                None if place.grow(1) => call(&*handler, &mut request),
                None => too_many_uploads(),
            };
            // Before the answer is out: whoever reads it may come with the next upload at once.
            drop(place);
            let old = behind_proxy && request.is_http_1_0();
            if behind_proxy {
                request.drain_body();
            }
            let exchange = Exchange::new(&request, reply.status, started, &observer);
            let writer = request.into_inner().into_writer();
            match compose(reply, &exchange, old) {
                Composed::Short { bytes, body } => short(writer, &bytes, body, exchange),
                Composed::Long(long) => stream(writer, long, exchange),
            }
        };
        // As for streams: a thread that does not start takes what was moved into it down with it.
        let job = Arc::new(Mutex::new(Some((request, reply, answer))));
        let taken = Arc::clone(&job);
        let take =
            |job: &Mutex<Option<_>>| job.lock().unwrap_or_else(PoisonError::into_inner).take();
        let spawned = self.uploads.spawn(move || {
            let Some((request, reply, answer)) = take(&taken) else { return };
            if catch_unwind(AssertUnwindSafe(|| answer(request, reply))).is_err() {
                log::error!("answering an upload panicked");
            }
        });
        if let Err(error) = spawned
            && let Some((mut request, _, _)) = take(&job)
        {
            log::warn!(request_id, error:% = error; "no thread for an upload");
            if self.behind_proxy {
                request.drain_body();
            }
            let exchange = Exchange::new(&request, 503, started, &self.observer);
            self.send(request.into_inner().into_writer(), too_many_uploads(), exchange, false);
        }
    }

    fn send(&self, writer: Box<dyn Write + Send>, reply: Reply, exchange: Exchange, old: bool) {
        let long = match compose(reply, &exchange, old) {
            Composed::Short { bytes, body } => return short(writer, &bytes, body, exchange),
            Composed::Long(long) => long,
        };
        let request_id = exchange.access.request_id.clone();
        // Both ends of the hand-over look here, since a thread that does not start takes whatever
        // was moved into it down with it.
        let job = Arc::new(Mutex::new(Some((writer, exchange))));
        let taken = Arc::clone(&job);
        let spawned = self.streams.spawn(move || {
            let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((writer, exchange)) = taken {
                stream(writer, long, exchange);
            }
        });
        if let Err(error) = spawned
            && let Some((writer, exchange)) =
                job.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            log::warn!(request_id, error:% = error; "no thread for a streaming answer");
            too_many_streams(writer, exchange);
        }
    }
}

/// An answer as it goes out.
enum Composed {
    /// In one write, of which the last bytes are the body.
    Short { bytes: Vec<u8>, body: usize },
    /// For as long as it takes.
    Long(Long),
}

struct Long {
    head: Vec<u8>,
    framing: Framing,
    length: Option<u64>,
    write: WriteBody,
}

fn compose(reply: Reply, exchange: &Exchange, old: bool) -> Composed {
    let Reply { status, headers, body } = reply;
    let request_id = &*exchange.access.request_id;
    let head_only = exchange.access.method == "HEAD";
    let mut head = Vec::with_capacity(512);
    let (length, write) = match body {
        ReplyBody::Bytes(bytes) if head_only || bytes.len() <= ABSORB_BYTES => {
            let framing = Framing::Length(bytes.len() as u64);
            write_head(status, &headers, request_id, framing, &mut head);
            let bodiless = head_only || status == 204 || status == 304;
            let body = if bodiless { 0 } else { bytes.len() };
            head.extend_from_slice(&bytes[..body]);
            return Composed::Short { bytes: head, body };
        }
        ReplyBody::Bytes(bytes) => (Some(bytes.len() as u64), whole(bytes)),
        ReplyBody::Stream { length, write } => (length, write),
    };
    let framing = match (old, length) {
        (true, Some(length)) => Framing::Length(length),
        (true, None) => Framing::Close,
        (false, length) => Framing::Chunked(length),
    };
    write_head(status, &headers, request_id, framing, &mut head);
    if head_only {
        return Composed::Short { bytes: head, body: 0 };
    }
    Composed::Long(Long { head, framing, length, write })
}

/// One write: tiny_http's own buffer passes anything over 1 KiB straight on.
fn short(mut writer: Box<dyn Write + Send>, bytes: &[u8], body: usize, mut exchange: Exchange) {
    exchange.access.bytes = body as u64;
    let sent = writer.write_all(bytes).and_then(|()| writer.flush());
    exchange.end(sent.is_ok());
}

fn call(handler: &dyn Handler, request: &mut Request) -> Reply {
    match catch_unwind(AssertUnwindSafe(|| handler.handle(request))) {
        Ok(reply) => reply,
        Err(panic) => {
            let request_id = request.request_id();
            log::error!(request_id; "a handler panicked: {}", panic_text(&*panic));
            Reply::json(500, &br#"{"detail":"Internal Server Error"}"#[..])
        }
    }
}

impl Exchange {
    fn new(
        request: &Request,
        status: u16,
        started: Instant,
        observer: &Option<Observer>,
    ) -> Exchange {
        let access = Access {
            request_id: request.request_id().to_owned(),
            method: request.method().to_owned(),
            path: request.path().to_owned(),
            peer: request.peer().to_owned(),
            status,
            duration: Duration::ZERO,
            bytes: 0,
            complete: false,
        };
        Exchange { access, started, observer: observer.clone() }
    }

    fn end(mut self, complete: bool) {
        self.access.complete = complete;
        self.access.duration = self.started.elapsed();
        let access = &self.access;
        log::debug!(
            request_id = access.request_id,
            method = access.method,
            path = access.path,
            peer = access.peer,
            status = access.status,
            bytes = access.bytes,
            complete = access.complete,
            duration_us = u64::try_from(access.duration.as_micros()).unwrap_or(u64::MAX);
            "answered"
        );
        if let Some(observer) = &self.observer {
            observer(access);
        }
    }
}

fn stream(mut writer: Box<dyn Write + Send>, long: Long, mut exchange: Exchange) {
    let Long { head, framing, length, write } = long;
    let begun = writer.write_all(&head).and_then(|()| writer.flush());
    let mut body = BodyWriter::new(&mut *writer, framing, length);
    let result = begun.and_then(|()| {
        let written = catch_unwind(AssertUnwindSafe(|| write(&mut body)));
        let written = written.unwrap_or_else(|panic| {
            let request_id = &*exchange.access.request_id;
            log::error!(request_id; "a streaming handler panicked: {}", panic_text(&*panic));
            Err(io::Error::other("panic"))
        });
        written.and_then(|()| body.finish())
    });
    if let Err(error) = &result {
        let request_id = &*exchange.access.request_id;
        log::debug!(request_id, error:% = error; "a streaming answer broke off");
        body.break_off();
    }
    exchange.access.bytes = body.written;
    exchange.end(result.is_ok());
}

fn whole(bytes: Cow<'static, [u8]>) -> WriteBody {
    Box::new(move |out| out.write_all(&bytes))
}

fn too_many_streams(mut writer: Box<dyn Write + Send>, mut exchange: Exchange) {
    let body = br#"{"detail":"too many streaming answers","hint":"repeat the request after the seconds in Retry-After"}"#;
    let headers =
        [("Content-Type".into(), "application/json".into()), ("Retry-After".into(), "5".into())];
    let mut out = Vec::new();
    let framing = Framing::Length(body.len() as u64);
    write_head(503, &headers, &exchange.access.request_id, framing, &mut out);
    out.extend_from_slice(body);
    let sent = writer.write_all(&out).and_then(|()| writer.flush());
    exchange.access.status = 503;
    exchange.access.bytes = body.len() as u64;
    exchange.end(sent.is_ok());
}

fn too_many_uploads() -> Reply {
    let body = br#"{"detail":"too many uploads at once","hint":"repeat the request after the seconds in Retry-After"}"#;
    Reply::json(503, &body[..]).with_header("Retry-After", "1")
}

fn length_required() -> Reply {
    let body =
        br#"{"detail":"length required","hint":"send the body with a Content-Length, unchunked"}"#;
    Reply::json(411, &body[..])
}

fn body_too_large() -> Reply {
    Reply::json(413, &br#"{"detail":"request body too large"}"#[..])
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
