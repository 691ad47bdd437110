//! Takes a `multipart/form-data` body apart. The body is whole and bounded by then.
//!
//! The crates that do this are asynchronous or unmaintained; what a form needs of RFC 7578 is little.

use crate::model::limits::MAX_MULTIPART_PARTS;

/// Longest boundary (RFC 2046).
const MAX_BOUNDARY_BYTES: usize = 70;
/// Headers of one part.
const MAX_PART_HEADERS: usize = 16;

/// One field of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Its name.
    pub name: String,
    /// Set for an uploaded file, even when empty.
    pub filename: Option<String>,
    /// Its bytes.
    pub content: &'a [u8],
}

/// Why a body is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The content type names no usable boundary.
    #[error("Missing boundary in multipart.")]
    NoBoundary,
    /// The parts cannot be told apart, or the last one has no end.
    #[error("Invalid multipart data.")]
    Malformed,
    /// More parts than a form of ours has any use for.
    #[error("Too many fields in multipart data.")]
    TooManyParts,
}

/// Whether a content type is that of a form with files.
pub fn is_form(content_type: Option<&str>) -> bool {
    is_essence(content_type.unwrap_or_default(), "multipart/form-data")
}

/// Whether a content type is that of a form as it was before forms had files.
pub fn is_older_form(content_type: &str) -> bool {
    is_essence(content_type, "application/x-www-form-urlencoded")
}

fn is_essence(content_type: &str, wanted: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(wanted)
}

/// The parts of a form, in order.
///
/// # Errors
/// [`FormError`].
pub fn parse<'a>(content_type: &str, body: &'a [u8]) -> Result<Vec<Part<'a>>, FormError> {
    let boundary = boundary(content_type).ok_or(FormError::NoBoundary)?;
    let delimiter = [b"--", boundary.as_bytes()].concat();
    // A preamble before the first delimiter is allowed and means nothing.
    let first = find(body, &delimiter).ok_or(FormError::Malformed)?;
    if first > 0 && !body[..first].ends_with(b"\n") {
        return Err(FormError::Malformed);
    }
    let mut rest = &body[first + delimiter.len()..];
    let inner = [b"\r\n", delimiter.as_slice()].concat();
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        rest = rest.strip_prefix(b"\r\n").ok_or(FormError::Malformed)?;
        let end = find(rest, &inner).ok_or(FormError::Malformed)?;
        if parts.len() == MAX_MULTIPART_PARTS {
            return Err(FormError::TooManyParts);
        }
        parts.push(part(&rest[..end])?);
        rest = &rest[end + inner.len()..];
    }
}

fn part(bytes: &[u8]) -> Result<Part<'_>, FormError> {
    let mut rest = bytes;
    let mut disposition = None;
    for _ in 0..=MAX_PART_HEADERS {
        let end = find(rest, b"\r\n").ok_or(FormError::Malformed)?;
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| FormError::Malformed)?;
        rest = &rest[end + 2..];
        if line.is_empty() {
            let disposition = disposition.ok_or(FormError::Malformed)?;
            let name = parameter(disposition, "name").ok_or(FormError::Malformed)?;
            let filename = parameter(disposition, "filename");
            return Ok(Part { name, filename, content: rest });
        }
        let (name, value) = line.split_once(':').ok_or(FormError::Malformed)?;
        if name.trim().eq_ignore_ascii_case("content-disposition") {
            disposition = Some(value);
        }
    }
    Err(FormError::Malformed)
}

fn boundary(content_type: &str) -> Option<String> {
    parameter(content_type, "boundary")
        .filter(|b| !b.is_empty() && b.len() <= MAX_BOUNDARY_BYTES)
        .filter(|b| b.bytes().all(|c| c.is_ascii_graphic() || c == b' '))
}

/// The value of `wanted` among the `;`-separated parameters behind the first token; quoted or not.
fn parameter(header: &str, wanted: &str) -> Option<String> {
    let mut rest = header.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let end = loop {
                    match chars.next()? {
                        (at, '"') => break at,
                        // Browsers escape only the quote; a lone backslash is a path's.
                        (_, '\\') if chars.as_str().starts_with('"') => {
                            value.push('"');
                            chars.next();
                        }
                        (_, c) => value.push(c),
                    }
                };
                (value, quoted[end + 1..].split_once(';').map(|(_, next)| next))
            }
            None => match after.split_once(';') {
                Some((value, next)) => (value.trim().to_owned(), Some(next)),
                None => (after.trim().to_owned(), None),
            },
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = next?;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=XX";

    #[test]
    fn fields_and_files_are_told_apart() {
        let body = b"--XX\r\nContent-Disposition: form-data; name=\"flow_name\"\r\n\r\nmain\r\n\
            --XX\r\nContent-Disposition: form-data; name=\"workflow\"; filename=\"a \\\"b\\\".yaml\"\r\n\
            Content-Type: application/x-yaml\r\n\r\nline 1\r\n--X\r\n\r\n--XX--\r\n";
        let parts = parse(TYPE, body).unwrap();
        assert_eq!(parts[0], Part { name: "flow_name".into(), filename: None, content: b"main" });
        assert_eq!(parts[1].filename.as_deref(), Some("a \"b\".yaml"));
        assert_eq!(parts[1].content, b"line 1\r\n--X\r\n");
        assert_eq!(parse("multipart/form-data; x=1; boundary=\"XX\"", body).unwrap(), parts);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for bad in [
            &b""[..],
            b"xx",
            b"--XX",
            b"--XX\r\n",
            b"--XX\r\n\r\n\r\n--XX--",
            b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nvalue",
            b"--XX\r\nContent-Disposition: form-data\r\n\r\nv\r\n--XX--",
            b"--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\nv\r\n--XX--",
            b"--XXmore\r\n",
        ] {
            assert_eq!(parse(TYPE, bad), Err(FormError::Malformed), "{bad:?}");
        }
        for bad in ["multipart/form-data", "multipart/form-data; boundary=", "text/plain"] {
            assert_eq!(parse(bad, b"--XX--"), Err(FormError::NoBoundary), "{bad}");
        }
        let one = "--XX\r\nContent-Disposition: form-data; name=a\r\n\r\nv\r\n";
        let many = one.repeat(MAX_MULTIPART_PARTS + 1) + "--XX--";
        assert_eq!(parse(TYPE, many.as_bytes()), Err(FormError::TooManyParts));
    }
}
