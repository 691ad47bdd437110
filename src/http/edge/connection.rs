//! One client's connection from its first byte to its last, on a thread of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::answer::Answer;
use super::client::{Client, NoHead, Socket, is_retry};
use super::head::{Admitted, admit, new_request_id};
use super::pool::{Lease, NoAnswer, NoUpstream};
use super::refusal::Refusal;
use super::relay::{Relayed, relay};
use super::upload::upload;

/// Capacity that a connection keeps for its next request.
const KEPT_BYTES: usize = 4 * 1024;

/// Serves requests one at a time until the connection ends.
pub fn serve(shared: &Shared, socket: &Arc<Socket>, peer: IpAddr) {
    let settings = &shared.settings;
    let tick = settings.head_deadline.min(settings.body_deadline).min(settings.idle_deadline);
    let Ok(mut client) = Client::new(Arc::clone(socket), tick, settings.write_deadline) else {
        return;
    };
    let peer = peer.to_canonical().to_string();
    let mut forward = Vec::new();
    let mut out = Vec::new();
    // A new connection is there because of a request: it gets no more time than a head.
    let mut idle = settings.head_deadline.min(settings.idle_deadline);
    loop {
        let length = match client.read_head(idle, settings.head_deadline) {
            Ok(length) => length,
            Err(NoHead::Gone) => return,
            Err(NoHead::Refused(refusal)) => {
                return refuse(shared, client, &refusal, &new_request_id(), false);
            }
        };
        if !socket.begin() {
            return;
        }
        let head = &client.buffered()[..length];
        let request = match admit(head, &peer, &settings.body_rules, &mut forward) {
            Ok(request) => request,
            Err(rejected) => {
                let id = rejected.request_id.unwrap_or_else(new_request_id);
                return refuse(shared, client, &rejected.refusal, &id, rejected.head_only);
            }
        };
        client.consume(length);
        match exchange(shared, &mut client, &request, &forward, &mut out) {
            Outcome::KeepAlive => {}
            Outcome::Close => {
                return client.finish(shared.stopping.load(Ordering::SeqCst));
            }
            // The client is most likely still sending.
            Outcome::CloseEarly => return client.finish(false),
            Outcome::Cut => return socket.close(),
            Outcome::Refused(refusal) => {
                return refuse(shared, client, &refusal, &request.request_id, request.head_only);
            }
        }
        forward.shrink_to(KEPT_BYTES);
        out.shrink_to(KEPT_BYTES);
        idle = settings.idle_deadline;
        socket.end();
        if shared.stopping.load(Ordering::SeqCst) {
            return client.finish(true);
        }
    }
}

/// Answers a client for which there is no place.
pub fn turn_away(shared: &Shared, socket: &Arc<Socket>) {
    let settings = &shared.settings;
    if let Ok(client) =
        Client::new(Arc::clone(socket), settings.head_deadline, settings.head_deadline)
    {
        refuse(shared, client, &Refusal::busy("too many connections"), &new_request_id(), false);
    }
}

/// How a request ended for its connection.
enum Outcome {
    /// The answer is out, the next request may come.
    KeepAlive,
    /// The answer is out, and was the last.
    Close,
    /// The answer is out before all of the body was read.
    CloseEarly,
    /// The answer broke off; only a broken connection tells the client.
    Cut,
    /// There is no answer but this.
    Refused(Refusal),
}

fn exchange(
    shared: &Shared,
    client: &mut Client,
    request: &Admitted,
    forward: &[u8],
    out: &mut Vec<u8>,
) -> Outcome {
    if request.streamed {
        return exchange_upload(shared, client, request, forward, out);
    }
    let settings = &shared.settings;
    // A client whose body is already here does not wait for leave to send it.
    if request.expects_continue
        && client.buffered().is_empty()
        && client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_err()
    {
        return Outcome::Cut;
    }
    let body = client.read_body(request.body_length, settings.body_deadline, &shared.budget);
    let (body, reserved) = match body {
        Ok(body) => body,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    let (lease, answer) = match ask(shared, request, forward, &body, out) {
        Ok(answered) => answered,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    // The answer may take long to be read; the body is not needed any more.
    drop((body, reserved));
    match relay(shared, client, lease, &answer, out) {
        Relayed::Whole if answer.keep_alive => Outcome::KeepAlive,
        Relayed::Whole => Outcome::Close,
        Relayed::Lost => Outcome::Refused(Refusal::lost()),
        Relayed::Cut => Outcome::Cut,
    }
}

/// As [`exchange`], for a body that is passed on while it arrives.
fn exchange_upload(
    shared: &Shared,
    client: &mut Client,
    request: &Admitted,
    forward: &[u8],
    out: &mut Vec<u8>,
) -> Outcome {
    let mut place = shared.uploads.empty();
    if !place.grow(1) {
        return Outcome::Refused(Refusal::busy("too many uploads at once"));
    }
    let answered = match upload(shared, client, request, forward, out) {
        Ok(answered) => answered,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    // Before the answer is out: whoever reads it may come with the next upload at once.
    drop(place);
    match relay(shared, client, answered.lease, &answered.answer, out) {
        Relayed::Whole if answered.early => Outcome::CloseEarly,
        Relayed::Whole if answered.answer.keep_alive => Outcome::KeepAlive,
        Relayed::Whole => Outcome::Close,
        Relayed::Lost => Outcome::Refused(Refusal::lost()),
        Relayed::Cut => Outcome::Cut,
    }
}

/// Gives a request to a handler and reads the head of the answer. A connection that turns out to
/// be dead is replaced; only what may be asked twice is asked twice.
fn ask<'s>(
    shared: &'s Shared,
    request: &Admitted,
    forward: &[u8],
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(Lease<'s>, Answer), Refusal> {
    let mut may_repeat = request.repeatable && body.is_empty();
    loop {
        let mut lease = shared.pool.checkout().map_err(|none| match none {
            NoUpstream::Busy => Refusal::busy("all handlers are busy"),
            NoUpstream::Stopped => Refusal::busy("the gateway is stopping"),
        })?;
        let closing = &shared.stopping;
        let upstream = lease.upstream();
        let answer = match upstream.send(forward, body) {
            Ok(()) => upstream.read_answer(request, closing, shared.settings.answer_deadline, out),
            Err(error) if is_retry(&error) => Err(NoAnswer::TimedOut),
            Err(_) => Err(NoAnswer::Closed),
        };
        match answer {
            Ok(answer) => return Ok((lease, answer)),
            Err(NoAnswer::Closed) if may_repeat => may_repeat = false,
            Err(NoAnswer::Closed | NoAnswer::Broken) => return Err(Refusal::lost()),
            Err(NoAnswer::TimedOut) => return Err(Refusal::unanswered()),
        }
    }
}

fn refuse(shared: &Shared, client: Client, refusal: &Refusal, request_id: &str, head_only: bool) {
    log::debug!(request_id, status = refusal.status; "refused: {}", refusal.detail);
    if let Some(on_refusal) = &shared.settings.on_refusal {
        on_refusal(refusal.status);
    }
    client.close_with(&refusal.reply(request_id, head_only));
}
