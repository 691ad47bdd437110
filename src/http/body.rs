//! The body of a request: read whole, or piece by piece while it arrives.

use std::io::{self, ErrorKind, Read};

use super::request::find_header;
use crate::http::edge::{BODY_HEADER, BodyRule};
use crate::model::limits::{MAX_BUFFERED_BYTES, MAX_JSON_BODY_BYTES};

/// What is read and thrown away of a body that a proxy should not have let through.
const MAX_DRAINED_BYTES: u64 = MAX_BUFFERED_BYTES as u64;

/// Why a request has no body to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is longer than its route takes (413).
    #[error("request body too large")]
    TooLarge,
    /// It ended before its announced length, or could not be read (400); never act on it.
    #[error("request body ended early")]
    Incomplete,
}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> io::Error {
        let kind = match error {
            BodyError::TooLarge => ErrorKind::InvalidData,
            BodyError::Incomplete => ErrorKind::UnexpectedEof,
        };
        io::Error::new(kind, error)
    }
}

/// What a handler thread is to do with a request, as far as its body is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing of the body is still to come from afar: call the handler.
    Here,
    /// The body is still to come: call the handler, but not on a thread of the pool.
    Coming,
    /// Longer than its route takes: 413, with these words where the rule has any.
    TooLarge(Option<&'static str>),
    /// To be streamed, and nobody has said how long it is: 411.
    Unannounced,
    /// Nothing can be done with the connection: neither use it nor drop the request.
    Unusable,
}

pub(super) struct Body {
    limit: u64,
    state: State,
}

enum State {
    Unread,
    Read(Vec<u8>),
    Failed(BodyError),
    Coming {
        left: u64,
    },
    /// All of a streamed body was read.
    Ended,
}

impl Body {
    pub fn new() -> Body {
        Body { limit: u64::MAX, state: State::Unread }
    }

    /// Looks at how the body will come. Without an edge in front it also makes sure that nothing
    /// of a body is left on the connection when tiny_http looks there for the next request.
    pub fn settle(
        &mut self,
        inner: &mut tiny_http::Request,
        rule: BodyRule,
        behind_proxy: bool,
    ) -> Settled {
        match (rule, behind_proxy) {
            (BodyRule::Whole { limit }, false) => {
                self.limit = limit;
                Settled::Here
            }
            (BodyRule::Whole { limit }, true) => {
                self.limit = limit;
                self.settle_whole(inner)
            }
            (BodyRule::Streamed { .. }, false) => {
                // Whoever asks for such a body as a whole gets a small one.
                self.limit = MAX_JSON_BODY_BYTES;
                let announced = find_header(inner, BODY_HEADER).and_then(|n| n.parse().ok());
                self.expect(announced.unwrap_or(0))
            }
            (BodyRule::Streamed { limit, too_large }, true) => {
                self.settle_streamed(inner, limit, too_large)
            }
        }
    }

    /// The whole body; the same each time.
    pub fn whole(&mut self, inner: &mut tiny_http::Request) -> Result<&[u8], BodyError> {
        match self.state {
            State::Unread => self.state = self.read(inner),
            State::Coming { left } => {
                self.state = if left > self.limit {
                    State::Failed(BodyError::TooLarge)
                } else {
                    let mut bytes = Vec::new();
                    match (BodyReader { inner, body: self }).read_to_end(&mut bytes) {
                        Ok(_) => State::Read(bytes),
                        Err(_) => State::Failed(BodyError::Incomplete),
                    }
                }
            }
            _ => {}
        }
        match &self.state {
            State::Read(bytes) => Ok(bytes),
            State::Failed(error) => Err(*error),
            _ => Err(BodyError::Incomplete),
        }
    }

    pub fn reader<'r>(&'r mut self, inner: &'r mut tiny_http::Request) -> BodyReader<'r> {
        if matches!(self.state, State::Unread) {
            // Bounded and here already, so that reading it is no wait.
            self.state = self.read(inner);
        }
        BodyReader { inner, body: self }
    }

    /// Bytes of a streamed body that are still to come.
    pub fn left(&self) -> u64 {
        match self.state {
            State::Coming { left } => left,
            _ => 0,
        }
    }

    /// Without an edge in front: reads what a handler has left of a streamed body, in little memory,
    /// since tiny_http would take as much as was announced, and would do so before it lets an answer
    /// out. As long as that takes: how fast a client must be is for the proxy to say.
    pub fn drain(&mut self, inner: &mut tiny_http::Request) {
        let mut piece = vec![0; 64 * 1024];
        while let State::Coming { .. } = self.state {
            if (BodyReader { inner, body: self }).read(&mut piece).is_err() {
                return;
            }
        }
    }

    fn expect(&mut self, length: u64) -> Settled {
        if length == 0 {
            self.state = State::Read(Vec::new());
            return Settled::Here;
        }
        self.state = State::Coming { left: length };
        Settled::Coming
    }

    fn settle_streamed(
        &mut self,
        inner: &mut tiny_http::Request,
        limit: u64,
        too_large: &'static str,
    ) -> Settled {
        self.limit = MAX_JSON_BODY_BYTES;
        if is_upgrade(inner) || has_chunks(inner) {
            return match self.settle_whole(inner) {
                Settled::Here if has_chunks(inner) => Settled::Unannounced,
                Settled::TooLarge(_) => Settled::Unannounced,
                settled => settled,
            };
        }
        let announced = inner.body_length().map_or(0, |length| length as u64);
        if announced <= limit {
            return self.expect(announced);
        }
        if announced - limit > MAX_DRAINED_BYTES {
            return Settled::Unusable;
        }
        self.state = State::Coming { left: announced };
        Settled::TooLarge(Some(too_large))
    }

    fn settle_whole(&mut self, inner: &mut tiny_http::Request) -> Settled {
        if is_upgrade(inner) {
            // tiny_http takes the rest of the connection for the body, and no further request.
            self.state = State::Read(Vec::new());
            return Settled::Here;
        }
        let announced = inner.body_length().map(|length| length as u64);
        if !has_chunks(inner) && announced.is_none_or(|length| length <= self.limit) {
            // tiny_http itself skips what a handler leaves unread of this.
            return Settled::Here;
        }
        if announced.is_some_and(|length| length > MAX_DRAINED_BYTES) {
            return Settled::Unusable;
        }
        let mut bytes = Vec::new();
        let mut piece = [0; 8 * 1024];
        let mut total = 0;
        while total <= MAX_DRAINED_BYTES {
            match inner.as_reader().read(&mut piece) {
                Ok(0) if announced.is_none_or(|length| length == total) => {
                    if total > self.limit {
                        self.state = State::Failed(BodyError::TooLarge);
                        return Settled::TooLarge(None);
                    }
                    self.state = State::Read(bytes);
                    return Settled::Here;
                }
                Ok(0) => return Settled::Unusable,
                Ok(count) => {
                    total += count as u64;
                    if total <= self.limit {
                        bytes.extend_from_slice(&piece[..count]);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Settled::Unusable,
            }
        }
        Settled::Unusable
    }

    fn read(&self, inner: &mut tiny_http::Request) -> State {
        let announced = inner.body_length();
        let mut bytes = Vec::new();
        // One byte more than is taken tells a body in chunks that is too long from one that fits.
        let limit = self.limit.saturating_add(1);
        match inner.as_reader().take(limit).read_to_end(&mut bytes) {
            Err(_) => State::Failed(BodyError::Incomplete),
            Ok(_) if bytes.len() as u64 > self.limit => State::Failed(BodyError::TooLarge),
            // tiny_http takes the end of a connection for the end of a body.
            Ok(_) if announced.is_some_and(|length| length != bytes.len()) => {
                State::Failed(BodyError::Incomplete)
            }
            Ok(_) => State::Read(bytes),
        }
    }
}

/// Reads a body while it arrives. It ends (reads zero bytes) only when exactly the announced number
/// of bytes has come, and the mark of their end; anything else is an error, now and each time after:
/// nobody may act on what was read until the end has been seen.
pub struct BodyReader<'r> {
    inner: &'r mut tiny_http::Request,
    body: &'r mut Body,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let left = match &mut self.body.state {
            State::Coming { left } => *left,
            State::Ended => return Ok(0),
            State::Read(bytes) => {
                let count = out.len().min(bytes.len());
                out[..count].copy_from_slice(&bytes[..count]);
                bytes.drain(..count);
                return Ok(count);
            }
            State::Failed(error) => return Err((*error).into()),
            State::Unread => return Err(BodyError::Incomplete.into()),
        };
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        // At the end, one more byte is asked for: none may come, and the mark of the end must.
        let mut probe = [0];
        let wanted = if left == 0 { &mut probe[..] } else { &mut out[..most] };
        loop {
            match (self.inner.as_reader().read(wanted), left) {
                (Ok(0), 0) => {
                    self.body.state = State::Ended;
                    return Ok(0);
                }
                (Ok(count @ 1..), 1..) => {
                    self.body.state = State::Coming { left: left - count as u64 };
                    return Ok(count);
                }
                (Err(error), _) if error.kind() == ErrorKind::Interrupted => {}
                // tiny_http takes the end of a connection for the end of a body.
                _ => {
                    self.body.state = State::Failed(BodyError::Incomplete);
                    return Err(BodyError::Incomplete.into());
                }
            }
        }
    }
}

fn is_upgrade(inner: &tiny_http::Request) -> bool {
    find_header(inner, "Connection").is_some_and(|v| v.to_ascii_lowercase().contains("upgrade"))
}

fn has_chunks(inner: &tiny_http::Request) -> bool {
    find_header(inner, "Transfer-Encoding").is_some()
}
