//! Which strings may become part of a NATS subject or a KV key.
//!
//! The `nats` crate checks neither CR/LF nor wildcards, so nothing reaches a subject or a header
//! that has not passed one of these functions.

use super::limits::MAX_NAME_BYTES;

/// The pattern of a routing tag, as error messages show it.
pub const TAG_PATTERN: &str = "^[A-Za-z0-9_-]+$";

pub fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(is_token_byte)
}

/// Whether `text` can be a key of a run or worker: the KV alphabet (letters, digits and
/// `-/_=.`), no empty token.
pub fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && text.bytes().all(|b| is_token_byte(b) || matches!(b, b'/' | b'=' | b'.'))
        && text.split('.').all(|token| !token.is_empty())
}

/// Whether `text` can be published to: printable ASCII without spaces or wildcards, no empty token.
pub fn is_subject(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
        && text.split('.').all(|token| !token.is_empty())
}

/// Turns a host name into something that may be part of a worker id.
pub fn sanitize(text: &str) -> String {
    let kept: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    if kept.is_empty() { "host".to_owned() } else { kept }
}

/// Whether `pattern` names `text`: it is the same, or ends in `*` and `text` begins with the rest.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => text.starts_with(prefix),
        None => text == pattern,
    }
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_one_subject_token() {
        for good in ["default", "gpu-1", "A_b", "0"] {
            assert!(is_tag(good), "{good}");
        }
        for bad in ["", "a.b", "*", ">", "a b", "é", "a\r\n", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert!(!is_tag(bad), "{bad:?}");
        }
    }

    #[test]
    fn keys_may_have_dots_but_no_empty_token() {
        for good in ["7f3a", "host.example-12", "api_keys.abc"] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a*", "a\n"] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
