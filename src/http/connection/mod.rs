//! One client's connection from its first byte to its last, on a thread of its own.
//!
//! [`head`] and [`body`] read a request, [`wire`] and [`stream`] write the answer; [`accept`] gives a
//! connection its thread, [`watchdog`] ends what takes too long and cannot end by itself.

pub mod accept;
pub mod body;
mod chunked;
pub mod head;
pub mod proxies;
pub mod socket;
mod stream;
pub mod watchdog;
mod wire;

use std::any::Any;
use std::io::{self, IoSlice, Write};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::application::{Access, Application, Conduct, Transfer};
use super::budget::Reservation;
use super::error::{self, Condition, ErrorReply, Refusal};
use super::permits::{NoPermit, Permit};
use super::reply::{ConnectionWord, Framing, Reply, ReplyBody, write_head};
use super::request::Request;
use crate::model::limits::{ABSORB_BYTES, FREE_BUFFER_BYTES};
use body::{Arriving, Body, CONTINUE, Pace, read_whole};
use head::{BodyEnd, Head, new_request_id};
use proxies::Origin;
use socket::{Handled, Phase, Socket};
use stream::BodyWriter;
use wire::{NoHead, Wire};

/// Capacity that a connection keeps for the head of its next answer.
const KEPT_BYTES: usize = 4 * 1024;
/// What is written at once of a large answer; the deadline for writing holds for each such piece.
const PIECE_BYTES: usize = 64 * 1024;

/// Serves requests one at a time until the connection ends.
pub fn serve<S: Application>(shared: &Shared<S>, socket: &Arc<Socket>, peer: IpAddr) {
    let settings = &shared.settings;
    let tick = settings.head_deadline.min(settings.body_deadline).min(settings.idle_deadline);
    let Ok(mut wire) = Wire::new(Arc::clone(socket), tick, settings.write_deadline) else { return };
    let peer = peer.to_canonical();
    let direct = Origin { peer: peer.to_string().into(), scheme: "http", host: None };
    let mut out = Vec::new();
    // A new connection is there because of a request: it gets no more time than a head.
    let mut idle = settings.head_deadline.min(settings.idle_deadline);
    loop {
        let length = match wire.read_head(idle, settings.head_deadline) {
            Ok(length) => length,
            Err(NoHead::Gone) => return,
            Err(NoHead::Refused(refusal)) => {
                return refuse(shared, wire, refusal, &new_request_id(), false);
            }
        };
        if !socket.enter(Phase::Busy) {
            return;
        }
        let head = match Head::read(&wire.buffered()[..length]) {
            Ok(head) => head,
            Err(rejected) => {
                let id = rejected.request_id.unwrap_or_else(new_request_id);
                return refuse(shared, wire, rejected.refusal, &id, rejected.is_head);
            }
        };
        wire.consume(length);
        let origin = match &shared.settings.trusted_proxies {
            Some(proxies) => proxies.origin(&head, peer, &direct),
            None => direct.clone(),
        };
        match exchange(shared, wire, head, origin, &mut out) {
            Some(kept) => wire = kept,
            None => return,
        }
        out.shrink_to(KEPT_BYTES);
        idle = settings.idle_deadline;
        // What is there already is no reason to count as idle.
        if !wire.has_begun(&mut 0) && !socket.enter(Phase::Idle) {
            return;
        }
        // After this connection has become idle: either it sees the stop, or the stop sees it idle.
        if shared.is_stopping() {
            return wire.finish(true);
        }
    }
}

/// Answers a client for which there is no place.
pub fn turn_away<S: Application>(shared: &Shared<S>, socket: &Arc<Socket>) {
    let deadline = shared.settings.head_deadline;
    if let Ok(wire) = Wire::new(Arc::clone(socket), deadline, deadline) {
        let refusal = &error::TOO_MANY_CONNECTIONS;
        refuse(shared, wire, refusal.into(), &new_request_id(), false);
    }
}

/// What a request holds while its handler has it.
enum Hold<'s> {
    Nothing,
    Permit(#[expect(dead_code, reason = "held for its drop")] Permit<'s>),
    Upload(#[expect(dead_code, reason = "held for its drop")] Reservation<'s>),
    Stream(Reservation<'s>),
}

/// Answers one request; the connection, when it takes another one.
fn exchange<S: Application>(
    shared: &Shared<S>,
    mut wire: Wire,
    head: Head,
    origin: Origin,
    out: &mut Vec<u8>,
) -> Option<Wire> {
    let (target, conduct) = shared.application.find(head.method(), head.path(), head.query());
    let socket = Arc::clone(&wire.socket);
    let about = Handled {
        request_id: Arc::clone(&head.request_id),
        is_head: *head.method() == tiny_http::Method::Head,
    };
    let refused = |wire, condition: &'static Condition| {
        refuse(shared, wire, condition.into(), &about.request_id, about.is_head);
        None
    };
    if matches!(head.body, BodyEnd::Length(length) if length > conduct.max_body) {
        return refused(wire, conduct.too_large);
    }
    let is_upload = conduct.transfer == Transfer::Upload && head.body != BodyEnd::Length(0);
    // A body that is read whole is here before anything is held for it.
    let body = match is_upload {
        true => None,
        false => match body_of(shared, &mut wire, &head, &conduct) {
            Ok(body) => Some(body),
            Err(condition) => return refused(wire, condition),
        },
    };
    let hold = match hold(shared, conduct.transfer, is_upload) {
        Ok(hold) => hold,
        Err(condition) => return refused(wire, condition),
    };
    if !socket.enter_handling(about.clone()) {
        return None;
    }
    let (body, mut wire, reserved) = match body {
        Some((bytes, reserved)) => (Body::Whole { bytes, taken: 0 }, Some(wire), Some(reserved)),
        None => {
            let pace = Pace { silence: shared.settings.body_deadline, rate: shared.settings.upload_rate };
            let arriving = Arriving::new(wire, head.body, &conduct, head.expects_continue, pace);
            (Body::Arriving(Box::new(arriving)), None, None)
        }
    };
    let mut request = Request::new(head, origin, body);
    let started = Instant::now();
    let reply = call(&shared.application, &mut request, &target);
    let (head, origin, body) = request.into_parts();
    // The watchdog has answered in its place, or the server stops.
    if !socket.enter(Phase::Busy) {
        return None;
    }
    let mut is_read = true;
    match body {
        Body::Arriving(arriving) => {
            let (given_back, end) = arriving.end();
            match end {
                Ok(read) => is_read = read,
                // Whatever its handler says: the client has not kept its word.
                Err(condition) => return refused(given_back, condition),
            }
            wire = Some(given_back);
        }
        // The client may take its time to read the answer; others need the memory meanwhile.
        Body::Whole { bytes, .. } => drop((bytes, reserved)),
    }
    let place = match hold {
        Hold::Stream(place) => Some(place),
        // Given back before the answer is out: a client that reads it may come again at once.
        other => {
            drop(other);
            None
        }
    };
    let may_go_on = head.keep_alive && is_read && !shared.is_stopping();
    let answer = Answer { head: &head, may_go_on, is_head: about.is_head };
    let mut wire = wire?;
    let written = write(shared, &mut wire, reply, place, &answer, out);
    let access = Access {
        request_id: &head.request_id,
        method: head.method().as_str(),
        path: head.path(),
        peer: &origin.peer,
        status: written.status,
        duration: started.elapsed(),
        bytes: written.bytes,
        complete: written.is_whole,
    };
    log::debug!(
        request_id = access.request_id, method = access.method, path = access.path,
        peer = access.peer, status = access.status, bytes = access.bytes, complete = access.complete,
        duration_us = u64::try_from(access.duration.as_micros()).unwrap_or(u64::MAX);
        "answered"
    );
    shared.application.answered(&access, &target);
    match written {
        // Only a broken connection tells the client that the answer is not whole.
        Written { is_whole: false, .. } => socket.close(),
        Written { goes_on: true, .. } => return Some(wire),
        // A client whose body was not read is most likely still sending.
        _ => wire.finish(is_read && shared.is_stopping()),
    }
    None
}

fn body_of<'s, S: Application>(
    shared: &'s Shared<S>,
    wire: &mut Wire,
    head: &Head,
    conduct: &Conduct,
) -> Result<(Vec<u8>, Reservation<'s>), &'static Condition> {
    // A client whose body is already here does not wait for leave to send it.
    if head.expects_continue && wire.buffered().is_empty() {
        let told = wire.write_all(&mut [IoSlice::new(CONTINUE)]);
        told.map_err(|_| &error::BODY_ENDED_EARLY)?;
    }
    read_whole(wire, head.body, conduct, shared.settings.body_deadline, &shared.memory)
}

/// Takes what a request has to hold.
fn hold<S: Application>(
    shared: &Shared<S>,
    transfer: Transfer,
    is_upload: bool,
) -> Result<Hold<'_>, &'static Condition> {
    match transfer {
        Transfer::Immediate => Ok(Hold::Nothing),
        Transfer::Stream => shared.streams.take_one().map(Hold::Stream).ok_or(&error::TOO_MANY_STREAMS),
        Transfer::Upload if is_upload => {
            shared.uploads.take_one().map(Hold::Upload).ok_or(&error::TOO_MANY_UPLOADS)
        }
        Transfer::Whole | Transfer::Upload => {
            let permit = shared.permits.take(shared.settings.permit_patience);
            permit.map(Hold::Permit).map_err(|none| match none {
                NoPermit::Busy => &error::NO_FREE_HANDLER,
                NoPermit::Stopped => &error::STOPPING,
            })
        }
    }
}

/// What an answer has to know of its request.
struct Answer<'a> {
    head: &'a Head,
    may_go_on: bool,
    is_head: bool,
}

struct Written {
    status: u16,
    bytes: u64,
    /// All of it, as far as the system has taken it.
    is_whole: bool,
    goes_on: bool,
}

/// Writes an answer. One that is large or comes with time needs a place, unless it has one.
fn write<'s, S: Application>(
    shared: &'s Shared<S>,
    wire: &mut Wire,
    mut reply: Reply,
    mut place: Option<Reservation<'s>>,
    answer: &Answer<'_>,
    out: &mut Vec<u8>,
) -> Written {
    let mut memory = shared.memory.empty();
    let needs_place = match reply.body() {
        _ if answer.is_head || place.is_some() => false,
        ReplyBody::Stream { .. } => true,
        ReplyBody::Bytes(std::borrow::Cow::Borrowed(_)) => false,
        ReplyBody::Bytes(bytes) if bytes.len() <= FREE_BUFFER_BYTES => false,
        ReplyBody::Bytes(bytes) => bytes.len() > ABSORB_BYTES || !memory.grow(bytes.len()),
    };
    if needs_place {
        place = shared.streams.take_one();
        if place.is_none() {
            reply = ErrorReply::from(&error::TOO_MANY_STREAMS).into_reply(false);
        }
    }
    let (head, body) = reply.into_parts();
    let status = head.status_code().0;
    let framing = match &body {
        ReplyBody::Bytes(bytes) => Framing::Length(bytes.len() as u64),
        ReplyBody::Stream { length: Some(length), .. } => Framing::Length(*length),
        ReplyBody::Stream { .. } if answer.head.is_http_1_0 => Framing::Close,
        ReplyBody::Stream { .. } => Framing::Chunked,
    };
    let goes_on = answer.may_go_on && framing != Framing::Close;
    let word = match (goes_on, answer.head.is_http_1_0) {
        (false, _) => ConnectionWord::Close,
        (true, true) => ConnectionWord::KeepAlive,
        (true, false) => ConnectionWord::Unsaid,
    };
    let request_id = &answer.head.request_id;
    write_head(head, framing, word, request_id, out);
    let is_bodiless = answer.is_head || matches!(status, 204 | 304);
    let (bytes, sent) = match body {
        _ if is_bodiless => (0, wire.write_all(&mut [IoSlice::new(out)])),
        ReplyBody::Bytes(bytes) => {
            let (first, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES));
            let begun = wire.write_all(&mut [IoSlice::new(out), IoSlice::new(first)]);
            let mut pieces = rest.chunks(PIECE_BYTES);
            let sent = begun.and_then(|()| pieces.try_for_each(|p| wire.write_all(&mut [IoSlice::new(p)])));
            (bytes.len() as u64, sent)
        }
        ReplyBody::Stream { write, .. } => {
            // A client that has closed its side after the request may still read all of a download; only
            // what has no end of its own must end with it.
            let phase = match framing {
                Framing::Length(_) => Phase::Busy,
                Framing::Chunked | Framing::Close => Phase::Streaming,
            };
            let begun = match wire.socket.enter(phase) {
                true => wire.write_all(&mut [IoSlice::new(out)]),
                false => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            let mut writer = BodyWriter::new(wire, framing);
            let sent = begun.and_then(|()| run(write, &mut writer, request_id));
            let bytes = writer.written;
            let is_open = wire.socket.enter(Phase::Busy);
            (bytes, sent.and_then(|()| is_open.then_some(()).ok_or(io::ErrorKind::BrokenPipe.into())))
        }
    };
    drop((place, memory));
    if let Err(error) = &sent {
        log::debug!(request_id = &**request_id, error:% = error; "an answer broke off");
    }
    Written { status, bytes, is_whole: sent.is_ok(), goes_on }
}

/// Lets a handler write its body; a panic breaks the answer off.
fn run(write: super::reply::WriteBody, writer: &mut BodyWriter<'_>, request_id: &str) -> io::Result<()> {
    let written = catch_unwind(AssertUnwindSafe(|| write(writer)));
    written.unwrap_or_else(|panic| {
        log::error!(request_id; "a streaming handler panicked: {}", panic_text(&*panic));
        Err(io::Error::other("panic"))
    })?;
    writer.finish()?;
    writer.flush()
}

fn call<S: Application>(application: &S, request: &mut Request, target: &S::Target) -> Reply {
    match catch_unwind(AssertUnwindSafe(|| application.answer(request, target))) {
        Ok(reply) => reply,
        Err(panic) => {
            let request_id = request.request_id();
            log::error!(request_id; "a handler panicked: {}", panic_text(&*panic));
            ErrorReply::from(&error::PANICKED).into_reply(false)
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Answers a request that no handler answers, and closes the connection: what follows on it may not
/// be the start of a request.
fn refuse<S: Application>(shared: &Shared<S>, wire: Wire, refusal: Refusal, request_id: &str, is_head: bool) {
    let status = refusal.condition.status;
    let detail = refusal.detail.as_deref().unwrap_or(refusal.condition.detail);
    log::debug!(request_id, status; "refused: {detail}");
    shared.application.refused(status);
    wire.close_with(&last_answer(refusal.into(), request_id, is_head));
}

/// The bytes of an error that is the last answer of its connection.
fn last_answer(refusal: ErrorReply, request_id: &str, is_head: bool) -> Vec<u8> {
    let (head, body) = refusal.into_reply(false).into_parts();
    let ReplyBody::Bytes(body) = body else { return Vec::new() };
    let mut out = Vec::new();
    write_head(head, Framing::Length(body.len() as u64), ConnectionWord::Close, request_id, &mut out);
    if !is_head {
        out.extend_from_slice(&body);
    }
    out
}
