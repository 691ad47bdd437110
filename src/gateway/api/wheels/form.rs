//! The form of an upload, read as it comes: the wheel goes to the store piece by piece.

use std::io::Read;

use serde_json::{Value, json};

use super::admission;
use super::unacceptable;
use crate::bus::{self, Sealed, Upload};
use crate::gateway::api::context::Parts;
use crate::gateway::api::error::{ApiError, WHEEL_TOO_LARGE};
use crate::gateway::api::schema::{Problem, parse_flag};
use crate::http::form::{FormReader, PartHead, is_form};
use crate::model::limits::MAX_FORM_FIELD_BYTES;
use crate::model::wheel::{NameError, WheelName, parse_tags};

const PIECE_BYTES: usize = 64 * 1024;
/// What every zip archive that holds something begins with.
const ZIP_BEGINS: &[u8] = b"PK\x03\x04";
/// With what its last record begins.
const ZIP_ENDS: &[u8] = b"PK\x05\x06";
/// Bytes of that record, without the comment that may follow.
const ZIP_END_BYTES: usize = 22;
const ZIP_COMMENT_BYTES: usize = u16::MAX as usize;

pub(super) struct Form {
    pub name: WheelName,
    /// All of its bytes are in the store; nobody sees them yet.
    pub sealed: Sealed,
    /// Whether a wheel of the same name may be there.
    pub replace: bool,
    pub tags: Vec<String>,
}

/// Of a field that comes twice the last one counts, unless a file was refused for the first. `named` gets
/// the wheel's name, also when the form is refused. After an error nothing stays in the store.
pub(super) fn read(
    parts: &Parts,
    content_type: &str,
    body: impl Read,
    named: &mut Option<String>,
) -> Result<Form, ApiError> {
    let mut fields = Fields { parts, named, wheel: None, no_file: None, replace: None, tags: None };
    if is_form(Some(content_type)) {
        let mut form = FormReader::new(content_type, body)?;
        while let Some(head) = form.next_part()? {
            fields.take(&mut form, &head)?;
        }
    }
    fields.finish()
}

struct Fields<'g> {
    parts: &'g Parts,
    /// The name of the last wheel that had one.
    named: &'g mut Option<String>,
    wheel: Option<(WheelName, Upload)>,
    /// The text of a `wheel` that is no file.
    no_file: Option<String>,
    replace: Option<Field>,
    tags: Option<Field>,
}

/// What was sent for a field that is text.
enum Field {
    Text(String),
    File(String),
}

impl Field {
    fn read<R: Read>(form: &mut FormReader<R>, head: &PartHead) -> Result<Field, ApiError> {
        Ok(match &head.filename {
            None => Field::Text(text(form)?),
            Some(filename) => Field::File(filename.clone()),
        })
    }

    fn text(&self) -> Option<&str> {
        match self {
            Field::Text(text) => Some(text),
            Field::File(_) => None,
        }
    }
}

impl Fields<'_> {
    fn take<R: Read>(&mut self, form: &mut FormReader<R>, head: &PartHead) -> Result<(), ApiError> {
        match (head.name.as_str(), &head.filename) {
            ("wheel", Some(filename)) => {
                self.no_file = None;
                // One that came before gives its place up first.
                self.wheel = None;
                self.wheel = Some(self.store(form, filename)?);
            }
            ("wheel", None) => self.no_file = Some(text(form)?),
            ("replace", _) => self.replace = Some(Field::read(form, head)?),
            ("tags", _) => self.tags = Some(Field::read(form, head)?),
            // What nobody has asked for is passed over with the next part.
            _ => {}
        }
        Ok(())
    }

    fn store<R: Read>(
        &mut self,
        form: &mut FormReader<R>,
        filename: &str,
    ) -> Result<(WheelName, Upload), ApiError> {
        let name = wheel_name(filename)?;
        *self.named = Some(name.file_name.clone());
        // A refusal that is certain already spares the client the upload.
        tags(self.tags.as_ref())?;
        // A word on replacing may still come; `true` refuses least.
        let replace = self.replace.as_ref().and_then(Field::text);
        let replace = replace.and_then(parse_flag).unwrap_or(true);
        let (store, known) = (&self.parts.wheels.store, self.parts.wheels.shelf.all());
        if admission::decide(known.iter().map(|meta| meta.name.as_str()), &name, replace).is_err() {
            // What is known may be late: a wheel that another gateway has just deleted is in nobody's way.
            let there = store.list()?.objects;
            admission::decide(there.iter().map(|meta| meta.name.as_str()), &name, replace)?;
        }
        let mut upload = store.upload()?;
        let mut ends = Ends::default();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = form.read(&mut piece)?;
            if count == 0 {
                break;
            }
            if upload.size() + count as u64 > self.parts.settings.max_wheel_bytes {
                return Err(ApiError::Bound(&WHEEL_TOO_LARGE));
            }
            ends.take(&piece[..count]);
            upload.write(&piece[..count]).map_err(stored)?;
        }
        if !ends.are_of_a_zip() {
            return Err(unacceptable("invalid wheel file", "it is not a zip archive, or not all of one"));
        }
        Ok((name, upload))
    }

    fn finish(self) -> Result<Form, ApiError> {
        let mut problems = Vec::new();
        let loc = |field: &str| vec!["body".into(), field.into()];
        if let Some(input) = self.no_file {
            let msg = "Value error, Expected UploadFile, received: <class 'str'>";
            let problem = Problem::new("value_error", loc("wheel"), msg, input.into());
            problems.push(problem.with_ctx(json!({"error": {}})));
        } else if self.wheel.is_none() {
            problems.push(Problem::missing(loc("wheel"), Value::Null));
        }
        let replace = match &self.replace {
            None => Some(true),
            Some(Field::Text(text)) if text.is_empty() => Some(true),
            Some(Field::Text(text)) => parse_flag(text).or_else(|| {
                problems.push(Problem::no_flag(loc("replace"), text.as_str().into()));
                None
            }),
            Some(Field::File(filename)) => {
                let (kind, msg) = ("bool_type", "Input should be a valid boolean");
                let input = filename.as_str().into();
                problems.push(Problem::new(kind, loc("replace"), msg, input));
                None
            }
        };
        if let Some(Field::File(filename)) = &self.tags {
            let (kind, msg) = ("string_type", "Input should be a valid string");
            problems.push(Problem::new(kind, loc("tags"), msg, filename.as_str().into()));
        }
        let (Some((name, upload)), Some(replace), true) = (self.wheel, replace, problems.is_empty()) else {
            return Err(ApiError::Schema(problems));
        };
        let tags = tags(self.tags.as_ref())?;
        let sealed = upload.seal().map_err(stored)?;
        Ok(Form { name, sealed, replace, tags })
    }
}

/// A browser may send the path that the file had on a machine whose separator is a backslash.
fn wheel_name(filename: &str) -> Result<WheelName, ApiError> {
    let file = filename.rsplit('\\').next().unwrap_or_default().trim();
    WheelName::parse(file).map_err(|error| match error {
        NameError::NotAWheel => unacceptable("invalid wheel name", error.to_string()),
        error => unacceptable("invalid wheel filename", error.to_string()),
    })
}

fn tags(field: Option<&Field>) -> Result<Vec<String>, ApiError> {
    let tags = parse_tags(field.and_then(Field::text).unwrap_or_default());
    tags.map_err(|reason| unacceptable("invalid wheel tags", reason))
}

fn text<R: Read>(form: &mut FormReader<R>) -> Result<String, ApiError> {
    Ok(String::from_utf8_lossy(&form.value(MAX_FORM_FIELD_BYTES)?).into_owned())
}

/// What a refusal of the store means for an upload.
pub(super) fn stored(error: bus::Error) -> ApiError {
    match error {
        full if full.is_store_full() => ApiError::WheelStoreFull,
        bus::Error::Stalled(_) => ApiError::BadBody("the form was at rest for too long"),
        other => other.into(),
    }
}

/// The ends of an archive tell a wheel from a page of HTML, or from one that was cut short.
#[derive(Default)]
struct Ends {
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Ends {
    fn take(&mut self, bytes: &[u8]) {
        let missing = ZIP_BEGINS.len().saturating_sub(self.first.len());
        self.first.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        self.last.extend_from_slice(bytes);
        // Shortened seldom, so that not every piece moves all of it.
        let kept = ZIP_END_BYTES + ZIP_COMMENT_BYTES;
        if self.last.len() > 2 * kept {
            self.last.drain(..self.last.len() - kept);
        }
    }

    /// Whether it ends with a zip's last record, whose comment reaches to the very end.
    fn are_of_a_zip(&self) -> bool {
        let ends_here = |at: &usize| {
            let record = &self.last[*at..];
            record.starts_with(ZIP_ENDS)
                && usize::from(u16::from_le_bytes([record[20], record[21]])) == record.len() - ZIP_END_BYTES
        };
        let most = self.last.len().saturating_sub(ZIP_END_BYTES - 1);
        self.first == ZIP_BEGINS && (0..most).rev().any(|at| ends_here(&at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_zip(bytes: &[u8], piece: usize) -> bool {
        let mut ends = Ends::default();
        bytes.chunks(piece).for_each(|piece| ends.take(piece));
        ends.are_of_a_zip()
    }

    #[test]
    fn an_archive_is_known_by_both_of_its_ends() {
        let mut end = ZIP_ENDS.to_vec();
        end.resize(ZIP_END_BYTES, 0);
        let archive = |middle: usize, comment: &[u8]| {
            let mut end = end.clone();
            end[20..].copy_from_slice(&u16::try_from(comment.len()).unwrap().to_le_bytes());
            [ZIP_BEGINS, &vec![7; middle], &end, comment].concat()
        };
        for piece in [1, 3, 1000, 70_000] {
            assert!(is_zip(&archive(0, b""), piece));
            assert!(is_zip(&archive(300_000, b"made by me"), piece));
            let cut = archive(300_000, b"");
            assert!(!is_zip(&cut[..cut.len() - 1], piece) && !is_zip(&cut[1..], piece));
            assert!(!is_zip(b"", piece) && !is_zip(b"PK\x03\x04", piece));
            assert!(!is_zip(&[archive(10, b""), vec![0; 5]].concat(), piece));
        }
        assert!(is_zip(&archive(5, &[1; ZIP_COMMENT_BYTES]), 4096));
    }

    #[test]
    fn names_have_the_contracts_words() {
        let words = |filename: &str| match wheel_name(filename) {
            Ok(name) => name.file_name,
            Err(ApiError::Unacceptable { detail, .. }) => detail.to_owned(),
            Err(other) => panic!("{other}"),
        };
        for (filename, expected) in [
            (" a-1.0-py3-none-any.whl", "a-1.0-py3-none-any.whl"),
            ("C:\\x\\a-1.0-py3-none-any.whl", "a-1.0-py3-none-any.whl"),
            ("../a-1.0-py3-none-any.whl", "invalid wheel name"),
            ("", "invalid wheel name"),
            ("a.zip", "invalid wheel name"),
            ("a.whl", "invalid wheel filename"),
            ("a-one-py3-none-any.whl", "invalid wheel filename"),
        ] {
            assert_eq!(words(filename), expected, "{filename}");
        }
    }
}
