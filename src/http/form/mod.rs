//! Takes `multipart/form-data` bodies apart, while they arrive or from memory.
//!
//! The crates that do this are asynchronous or unmaintained; what a form needs of RFC 7578 is little.

mod boundary;
mod reader;

pub use reader::{FormReader, PartHead};

/// Why a body is no form. Its text never changes, since clients may know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormError {
    /// The content type names no usable boundary.
    NoBoundary,
    /// The parts cannot be told apart, or the last one has no end.
    Malformed,
    /// More parts than a form of ours has any use for.
    TooManyParts,
    /// A field that is read as a whole is longer than its reader takes.
    TooLong,
    /// The request ended before its body did; never act on what was read of it.
    Incomplete,
}

impl FormError {
    pub fn text(self) -> &'static str {
        match self {
            FormError::NoBoundary => "Missing boundary in multipart.",
            FormError::Malformed => "Invalid multipart data.",
            FormError::TooManyParts => "Too many fields in multipart data.",
            FormError::TooLong => "A field in multipart data is too long.",
            FormError::Incomplete => "request body ended early",
        }
    }
}

/// One field of a form that was read as a whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// Set for an uploaded file, even when empty.
    pub filename: Option<String>,
    pub content: Vec<u8>,
}

/// The parts of a form that is in memory, in order.
pub fn parse(content_type: &str, body: &[u8]) -> Result<Vec<Part>, FormError> {
    let mut form = FormReader::new(content_type, body)?;
    let mut parts = Vec::new();
    while let Some(PartHead { name, filename }) = form.next_part()? {
        parts.push(Part { name, filename, content: form.value(body.len())? });
    }
    Ok(parts)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::MAX_MULTIPART_PARTS;

    const TYPE: &str = "multipart/form-data; boundary=XX";

    #[test]
    fn fields_and_files_are_told_apart() {
        let body = b"--XX\r\nContent-Disposition: form-data; name=\"flow_name\"\r\n\r\nmain\r\n\
            --XX\r\nContent-Disposition: form-data; name=\"workflow\"; filename=\"a \\\"b\\\".yaml\"\r\n\
            Content-Type: application/x-yaml\r\n\r\nline 1\r\n--X\r\n\r\n--XX--\r\n";
        let parts = parse(TYPE, body).unwrap();
        assert_eq!(parts[0], Part { name: "flow_name".into(), filename: None, content: b"main".to_vec() });
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
