//! Answers that a client may keep and ask about again: bytes with an `ETag`, or 304.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::http::{Reply, Request};

/// Bytes of the hash in an `ETag`: far more than a few documents need to be told apart.
const ETAG_BYTES: usize = 12;

/// Bytes that stay the same while the process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    pub content_type: &'static str,
    pub bytes: Cow<'static, [u8]>,
    /// Changes with the bytes; in quotes.
    pub etag: String,
}

impl Cached {
    pub(crate) fn new(content_type: &'static str, bytes: impl Into<Cow<'static, [u8]>>) -> Cached {
        let bytes = bytes.into();
        let hash = Sha256::digest(&bytes);
        let hex: String = hash.iter().take(ETAG_BYTES).map(|byte| format!("{byte:02x}")).collect();
        Cached { content_type, bytes, etag: format!("\"{hex}\"") }
    }

    /// The bytes, or 304 when the client has them. It has to ask each time, so that after an upgrade
    /// nothing old is used.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        let known = request.header("If-None-Match").unwrap_or_default();
        let reply = if is_among(&self.etag, known) {
            Reply::empty(304)
        } else {
            Reply::bytes(200, self.content_type, self.bytes.clone())
        };
        reply.with_header("ETag", self.etag.clone()).with_header("Cache-Control", "no-cache")
    }
}

/// Whether the value of an `If-None-Match` names `etag`; weak ones will do (RFC 9110, 13.1.2).
fn is_among(etag: &str, known: &str) -> bool {
    known.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_found_in_any_list_and_changes_with_the_bytes() {
        let etag = Cached::new("text/plain", &b"a"[..]).etag;
        assert_ne!(etag, Cached::new("text/plain", &b"b"[..]).etag);
        for known in ["*".to_owned(), etag.clone(), format!("\"x\", W/{etag}")] {
            assert!(is_among(&etag, &known), "{known}");
        }
        for other in ["", "\"x\"", etag.trim_matches('"')] {
            assert!(!is_among(&etag, other), "{other}");
        }
    }
}
