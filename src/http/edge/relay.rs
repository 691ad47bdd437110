//! Passes an answer on: short ones at once and whole, long ones as they come.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Shared;
use super::answer::{Answer, Delivery, Framing};
use super::chunks::{Broken, Decoder};
use super::client::{Client, is_retry};
use super::pool::{Lease, Upstream};
use crate::model::limits::{ABSORB_BYTES, FREE_BUFFER_BYTES};

/// How an answer was passed on.
#[derive(Debug, PartialEq, Eq)]
pub enum Relayed {
    /// The client has all of it.
    Whole,
    /// It broke off before the client got anything.
    Lost,
    /// It broke off, or the client is gone.
    Cut,
}

/// Passes on the answer whose head, as the client gets it, is in `out`.
///
/// A short answer is read whole and its connection given back *before* it is written to the
/// client, so that a client that does not read occupies no handler. Any other answer leaves the
/// pool together with its connection, and another is opened in its place.
pub fn relay(
    shared: &Shared,
    client: &mut Client,
    mut lease: Lease<'_>,
    answer: &Answer,
    out: &mut Vec<u8>,
) -> Relayed {
    let deadline = shared.settings.answer_deadline;
    let mut reserved = shared.budget.empty();
    if let Framing::Length(length) = answer.framing
        && let Ok(length) = usize::try_from(length)
        && length <= ABSORB_BYTES
        && (length <= FREE_BUFFER_BYTES || reserved.grow(length))
    {
        if absorb(lease.upstream(), length, deadline, out).is_err() {
            return Relayed::Lost;
        }
        if answer.reusable {
            lease.give_back();
        }
        let written = client.write_all(out);
        out.clear();
        return if written.is_ok() { Relayed::Whole } else { Relayed::Cut };
    }
    let passed = stream(client, lease.detach(), answer, deadline, out);
    out.clear();
    if passed.is_some() { Relayed::Whole } else { Relayed::Cut }
}

/// Reads a body of known length behind the head in `out`.
fn absorb(
    upstream: &mut Upstream,
    length: usize,
    deadline: Duration,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    let early = length.min(upstream.buffered().len());
    out.extend_from_slice(&upstream.buffered()[..early]);
    upstream.consume(early);
    let mut filled = out.len();
    out.resize(filled + length - early, 0);
    let until = Instant::now() + deadline;
    while filled < out.len() {
        match (&*upstream.stream).read(&mut out[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if is_retry(&error) && Instant::now() < until => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where the body of a long answer ends.
enum Source {
    Length(u64),
    Chunked(Decoder),
}

/// Passes on a body read by read, each at once; `None` when it broke off or the client is gone.
/// `silence` bounds each wait for the handler.
fn stream(
    client: &mut Client,
    mut upstream: Upstream,
    answer: &Answer,
    silence: Duration,
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut source = match answer.framing {
        Framing::Length(length) => Source::Length(length),
        Framing::Chunked => Source::Chunked(Decoder::default()),
    };
    let mut promised = match answer.delivery {
        Delivery::Length(length) => Some(length),
        Delivery::Chunked | Delivery::Close => None,
    };
    let mut data = Vec::new();
    loop {
        data.clear();
        let done = source.take(&mut upstream, &mut data).ok()?;
        if let Some(left) = &mut promised {
            *left = left.checked_sub(data.len() as u64)?;
        }
        if answer.delivery == Delivery::Chunked {
            put_chunk(&data, done, out);
        } else {
            out.extend_from_slice(&data);
        }
        if !out.is_empty() {
            client.write_all(out).ok()?;
            out.clear();
        }
        if done {
            return matches!(promised, None | Some(0)).then_some(());
        }
        wait(client, &upstream, silence)?;
        match upstream.fill() {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

impl Source {
    /// Takes the data out of what has been read; `true` when it was the last.
    fn take(&mut self, upstream: &mut Upstream, data: &mut Vec<u8>) -> Result<bool, Broken> {
        let buffered = upstream.buffered();
        let (used, done) = match self {
            Source::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buffered.len());
                data.extend_from_slice(&buffered[..take]);
                *left -= take as u64;
                (take, *left == 0)
            }
            Source::Chunked(decoder) => {
                let used = decoder.decode(buffered, data)?;
                (used, decoder.is_done())
            }
        };
        upstream.consume(used);
        Ok(done)
    }
}

fn put_chunk(data: &[u8], last: bool, out: &mut Vec<u8>) {
    if !data.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
    if last {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

/// Waits until the handler has written more. `None` when it stays silent for too long, or when the
/// client has gone: a watcher that nobody listens to must not wait for its next event to find out.
fn wait(client: &Client, upstream: &Upstream, silence: Duration) -> Option<()> {
    // A client that has closed its sending side will not read much longer either. What it sends
    // (its next request) is none of our business now, so only the hang-up is waited for.
    #[cfg(target_os = "linux")]
    let gone = PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    let gone = PollFlags::HUP;
    let until = Instant::now() + silence;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok()?;
        let mut sockets = [
            PollFd::new(&client.socket.stream, gone),
            PollFd::new(&*upstream.stream, PollFlags::IN),
        ];
        match poll(&mut sockets, Some(&left)) {
            Ok(0) => return None,
            Ok(_) if !sockets[0].revents().is_empty() => return None,
            Ok(_) => return Some(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
