//! A form with a file that is sent as it is read: the file is never in memory as a whole.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use ureq::http::{Response, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body, SendBody, Timeout};

use super::early_answer::EarlyAnswers;
use super::multipart::Frame;
use super::transport::{self, Call};
use super::{Client, Error};
use crate::model::wheel::hex;

/// How fast a gateway stores what it was sent, at least, in bytes per second: when it has a file whole, its
/// answer may come as much later.
const CLIENT_STORE_RATE: u64 = 1024 * 1024;
/// The slowest line, in bytes per second, over which the client sends a file: an upload may take as much
/// longer than the time of a call as the file takes at this rate.
const CLIENT_UPLOAD_RATE: u64 = 64 * 1024;

pub struct Uploaded {
    pub answer: Value,
    /// The SHA-256 of the bytes that were sent, in hex.
    pub sha256_hex: String,
}

impl Client {
    /// Sends `call` with the file at `path` inside `frame`, and reads a JSON answer. `progress` gets
    /// the number of bytes sent and the size of the file; after a redirect it begins again.
    ///
    /// The time of a call grows with the file; a server that takes nothing for [`Client::timeout`] is
    /// given up before.
    pub(super) fn upload(
        &self,
        call: &Call,
        frame: &Frame,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Uploaded, Error> {
        let bad = |reason: String| Error::BadFile { path: path.to_owned(), reason };
        let metadata = path.metadata().map_err(|error| bad(error.to_string()))?;
        if !metadata.is_file() {
            return Err(bad("it is not a file".to_owned()));
        }
        let size = metadata.len();
        let more = Duration::from_secs(size / CLIENT_UPLOAD_RATE);
        let client = Client { timeout: self.timeout.saturating_add(more), ..self.clone() };
        let end = Instant::now() + client.timeout;
        let mut sha256_hex = String::new();
        let response = client.followed(call, |url| {
            let file = File::open(path).map_err(|error| bad(error.to_string()))?;
            let mut form = Form {
                head: &frame.head,
                file,
                size,
                left: size,
                tail: &frame.tail,
                hash: Sha256::new(),
                early: EarlyAnswers::default(),
                failure: None,
                progress: &mut *progress,
            };
            let sent = client.send_form(call, url, &mut form, frame, (end, self.timeout));
            if let Some(reason) = form.failure {
                return Err(bad(reason));
            }
            sha256_hex = hex(&form.hash.finalize());
            sent
        })?;
        Ok(Uploaded { answer: client.read_json(call, response)?, sha256_hex })
    }

    /// Sends the form until `end`; `silence` is how long the server may take nothing.
    fn send_form(
        &self,
        call: &Call,
        url: &str,
        form: &mut Form<'_>,
        frame: &Frame,
        (end, silence): (Instant, Duration),
    ) -> Result<Response<Body>, Error> {
        // A connection of its own: nothing else may be sent on one that was left early.
        let agent = Agent::with_parts(
            transport::config(&self.address),
            DefaultConnector::default().chain(form.early.clone()),
            DefaultResolver::default(),
        );
        let size = form.size;
        let length = (frame.head.len() + frame.tail.len()) as u64 + size;
        let request = self
            .head(call, url)
            .header(header::CONTENT_TYPE, &frame.content_type)
            .header(header::CONTENT_LENGTH, length)
            .body(SendBody::from_reader(form));
        let patience = silence + Duration::from_secs(size / CLIENT_STORE_RATE);
        let sent = request.map_err(ureq::Error::from).and_then(|request| {
            let request = agent
                .configure_request(request)
                .timeout_global(Some(end.saturating_duration_since(Instant::now())))
                .timeout_per_write(Some(silence))
                .timeout_recv_response(Some(patience))
                .build();
            agent.run(request)
        });
        sent.map_err(|error| match error {
            ureq::Error::Timeout(Timeout::PerWrite) => Error::Broken {
                request: call.name(),
                reason: format!("the server has taken nothing for {silence:?}"),
            },
            ureq::Error::Timeout(Timeout::RecvResponse) => {
                Error::TimedOut { request: call.name(), timeout: patience }
            }
            error => self.failure(call.name(), error),
        })
    }
}

/// The body of the form, read once from its beginning to its end.
struct Form<'a> {
    head: &'a [u8],
    file: File,
    /// Bytes of the file when it was opened: as many are sent.
    size: u64,
    left: u64,
    tail: &'a [u8],
    hash: Sha256,
    early: EarlyAnswers,
    failure: Option<String>,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Read for Form<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.head.is_empty() {
            return self.head.read(buffer);
        }
        if self.left == 0 {
            return self.tail.read(buffer);
        }
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = if self.early.peer_has_left() {
            // The length is announced, but the server does not read what is in the buffer.
            room
        } else {
            let count = self.read_file(&mut buffer[..room])?;
            self.hash.update(&buffer[..count]);
            (self.progress)(self.size - self.left + count as u64, self.size);
            count
        };
        self.left -= count as u64;
        Ok(count)
    }
}

impl Form<'_> {
    fn read_file(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let failed = loop {
            match self.file.read(buffer) {
                // The length is announced: without an error the library would ask for ever.
                Ok(0) => break io::Error::new(ErrorKind::UnexpectedEof, "it has become shorter"),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(count) => return Ok(count),
                Err(error) => break error,
            }
        };
        self.failure = Some(failed.to_string());
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn form<'a>(progress: &'a mut dyn FnMut(u64, u64), size: u64) -> Form<'a> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"12345").unwrap();
        file.rewind().unwrap();
        let (hash, early) = (Sha256::new(), EarlyAnswers::default());
        Form { head: b"<", file, size, left: size, tail: b">", hash, early, failure: None, progress }
    }

    #[test]
    fn as_many_bytes_are_sent_as_were_announced() {
        let (mut told, mut text) = (Vec::new(), String::new());
        let mut progress = |sent, size| told.push((sent, size));
        // What the file has grown by since is not sent.
        let mut grown = form(&mut progress, 4);
        grown.read_to_string(&mut text).unwrap();
        assert_eq!(text, "<1234>");
        assert_eq!(
            hex(&grown.hash.finalize()),
            "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4"
        );
        assert_eq!(told.last(), Some(&(4, 4)));
        let mut progress = |_, _| ();
        let mut shorter = form(&mut progress, 6);
        assert!(shorter.read_to_string(&mut String::new()).is_err());
        assert_eq!(shorter.failure.as_deref(), Some("it has become shorter"));
    }
}
