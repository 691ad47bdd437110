//! Takes `multipart/form-data` bodies apart: [`parse`] one that is in memory, [`FormReader`] one that
//! is still arriving. Both read the same forms in the same way.
//!
//! The crates that do this are asynchronous or unmaintained; what a form needs of RFC 7578 is little.

mod boundary;
mod streamed;
mod whole;

pub use streamed::{FormReader, PartHead};
pub use whole::{Part, parse};

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
