//! One request on a handler thread: from tiny_http's hands to the last byte of the answer.

use std::any::Any;
use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::reply::{Framing, ReplyBody, WriteBody, write_head};
use super::request::Request;
use super::stream::BodyWriter;
use super::{Handler, Reply};
use crate::gateway::edge::{BodyRule, BodyRules, PROBE};
use crate::model::limits::ABSORB_BYTES;
use crate::thread::crew::Crew;

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
    /// The answer's status.
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
    pub streams: Crew,
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
        let BodyRule::Whole { limit } = (self.body_rules)(request.method(), request.path());
        request.limit_body(limit);
        if self.behind_proxy && !request.settle_body() {
            // Dropping the request would make tiny_http allocate as much as was announced, and then
            // take the rest of a body for a request. Losing one connection to a proxy that does
            // not keep its limits is the lesser harm.
            let request_id = request.request_id().to_owned();
            log::error!(request_id; "the proxy sent a body that cannot be read; raise its checks");
            std::mem::forget(request);
            return;
        }
        let reply = if request.is_too_large() { body_too_large() } else { self.call(&mut request) };
        let access = Access {
            request_id: request.request_id().to_owned(),
            method: request.method().to_owned(),
            path: request.path().to_owned(),
            peer: request.peer().to_owned(),
            status: reply.status,
            duration: Duration::ZERO,
            bytes: 0,
            complete: false,
        };
        let old = self.behind_proxy && request.is_http_1_0();
        let inner = request.into_inner();
        let exchange = Exchange { access, started, observer: self.observer.clone() };
        self.send(inner.into_writer(), reply, exchange, old);
    }

    fn call(&self, request: &mut Request) -> Reply {
        match catch_unwind(AssertUnwindSafe(|| self.handler.handle(request))) {
            Ok(reply) => reply,
            Err(panic) => {
                let request_id = request.request_id();
                log::error!(request_id; "a handler panicked: {}", panic_text(&*panic));
                Reply::json(500, &br#"{"detail":"Internal Server Error"}"#[..])
            }
        }
    }

    fn send(
        &self,
        mut writer: Box<dyn Write + Send>,
        reply: Reply,
        mut exchange: Exchange,
        old: bool,
    ) {
        let Reply { status, headers, body } = reply;
        let head_only = exchange.access.method == "HEAD";
        let mut head = Vec::with_capacity(512);
        let request_id = exchange.access.request_id.clone();
        let (length, write) = match body {
            ReplyBody::Bytes(bytes) if head_only || bytes.len() <= ABSORB_BYTES => {
                let framing = Framing::Length(bytes.len() as u64);
                write_head(status, &headers, &request_id, framing, &mut head);
                if !(head_only || status == 204 || status == 304) {
                    head.extend_from_slice(&bytes);
                    exchange.access.bytes = bytes.len() as u64;
                }
                // One write: tiny_http's own buffer passes anything over 1 KiB straight on.
                let sent = writer.write_all(&head).and_then(|()| writer.flush());
                return exchange.end(sent.is_ok());
            }
            ReplyBody::Bytes(bytes) => (Some(bytes.len() as u64), whole(bytes)),
            ReplyBody::Stream { length, write } => (length, write),
        };
        let framing = match (old, length) {
            (true, Some(length)) => Framing::Length(length),
            (true, None) => Framing::Close,
            (false, length) => Framing::Chunked(length),
        };
        write_head(status, &headers, &request_id, framing, &mut head);
        if head_only {
            let sent = writer.write_all(&head).and_then(|()| writer.flush());
            return exchange.end(sent.is_ok());
        }
        // Both ends of the hand-over look here, since a thread that does not start takes whatever
        // was moved into it down with it.
        let job = Arc::new(Mutex::new(Some((writer, exchange))));
        let taken = Arc::clone(&job);
        let spawned = self.streams.spawn(move || {
            let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((writer, exchange)) = taken {
                stream(writer, &head, framing, length, write, exchange);
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

impl Exchange {
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

fn stream(
    mut writer: Box<dyn Write + Send>,
    head: &[u8],
    framing: Framing,
    length: Option<u64>,
    write: WriteBody,
    mut exchange: Exchange,
) {
    let begun = writer.write_all(head).and_then(|()| writer.flush());
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

fn body_too_large() -> Reply {
    Reply::json(413, &br#"{"detail":"request body too large"}"#[..])
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
