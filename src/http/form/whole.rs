//! A form that is in memory as a whole, bounded before it got there.

use super::FormError;
use super::boundary::{Headers, Needle, delimiter};
use crate::model::limits::MAX_MULTIPART_PARTS;

/// One field of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct Part<'a> {
    pub name: String,
    /// Set for an uploaded file, even when empty.
    pub filename: Option<String>,
    pub content: &'a [u8],
}

/// The parts of a form, in order.
///
/// # Errors
/// [`FormError`].
pub fn parse<'a>(content_type: &str, body: &'a [u8]) -> Result<Vec<Part<'a>>, FormError> {
    let inner = Needle::new([b"\r\n".as_slice(), &delimiter(content_type)?].concat());
    let delimiter = Needle::new(inner.bytes()[2..].to_vec());
    // A preamble before the first delimiter is allowed and means nothing.
    let first = delimiter.find(body).ok_or(FormError::Malformed)?;
    if first > 0 && !body[..first].ends_with(b"\n") {
        return Err(FormError::Malformed);
    }
    let mut rest = &body[first + delimiter.bytes().len()..];
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        rest = rest.strip_prefix(b"\r\n").ok_or(FormError::Malformed)?;
        let end = inner.find(rest).ok_or(FormError::Malformed)?;
        if parts.len() == MAX_MULTIPART_PARTS {
            return Err(FormError::TooManyParts);
        }
        parts.push(part(&rest[..end])?);
        rest = &rest[end + inner.bytes().len()..];
    }
}

fn part(bytes: &[u8]) -> Result<Part<'_>, FormError> {
    let mut rest = bytes;
    let mut headers = Headers::default();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").ok_or(FormError::Malformed)?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if let Some((name, filename)) = headers.take(line)? {
            return Ok(Part { name, filename, content: rest });
        }
    }
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
