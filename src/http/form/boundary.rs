//! The boundary of a form, and the head of a part.

use super::FormError;

/// Longest boundary (RFC 2046).
const MAX_BOUNDARY_BYTES: usize = 70;
const MAX_PART_HEADERS: usize = 16;

/// What stands before each part: two dashes and the boundary that the content type names.
pub fn delimiter(content_type: &str) -> Result<Vec<u8>, FormError> {
    let boundary = parameter(content_type, "boundary")
        .filter(|b| !b.is_empty() && b.len() <= MAX_BOUNDARY_BYTES)
        .filter(|b| b.bytes().all(|c| c.is_ascii_graphic() || c == b' '))
        .ok_or(FormError::NoBoundary)?;
    Ok([b"--", boundary.as_bytes()].concat())
}

/// What the headers of one part say, read line by line.
#[derive(Debug, Default)]
pub struct Headers {
    lines: usize,
    disposition: Option<String>,
}

impl Headers {
    /// Takes one line without its end; at the empty one, gives the part's name and file name.
    ///
    /// # Errors
    /// [`FormError::Malformed`]: no header, too many of them, or none that names the part.
    pub fn take(&mut self, line: &[u8]) -> Result<Option<(String, Option<String>)>, FormError> {
        let line = std::str::from_utf8(line).map_err(|_| FormError::Malformed)?;
        if line.is_empty() {
            let disposition = self.disposition.take().ok_or(FormError::Malformed)?;
            let name = parameter(&disposition, "name").ok_or(FormError::Malformed)?;
            return Ok(Some((name, parameter(&disposition, "filename"))));
        }
        self.lines += 1;
        if self.lines > MAX_PART_HEADERS {
            return Err(FormError::Malformed);
        }
        let (name, value) = line.split_once(':').ok_or(FormError::Malformed)?;
        if name.trim().eq_ignore_ascii_case("content-disposition") {
            self.disposition = Some(value.to_owned());
        }
        Ok(None)
    }
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
