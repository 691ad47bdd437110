//! A form that is still arriving: its parts one after the other, in a small fixed memory.

use std::io::{ErrorKind, Read};

use memchr::memmem::Finder;

use super::FormError;
use super::boundary::{Headers, delimiter};
use crate::model::limits::{MAX_MULTIPART_PARTS, MAX_PART_HEAD_BYTES, UPLOAD_PIECE_BYTES};

/// What is read at once, and all that is kept; the head of a part must fit in.
const BUFFER_BYTES: usize = UPLOAD_PIECE_BYTES;

/// Reads a form from `R` while it arrives. What was read of it may be acted on when
/// [`FormReader::next_part`] has returned `None`, and not before: only then is it certain that the form,
/// and the body around it, has come to its end.
pub struct FormReader<R> {
    inner: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// What stands before each part but the first: CR LF and the delimiter.
    needle: Finder<'static>,
    place: Place,
    parts: usize,
    /// How many bytes from `start` are content of the part.
    clear: usize,
    found: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartHead {
    pub name: String,
    /// Set for an uploaded file, even when empty.
    pub filename: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Preamble,
    Content,
    Delimiter,
    Ended,
    Failed(FormError),
}

impl<R: Read> FormReader<R> {
    /// Begins to read a form; nothing is read yet.
    pub fn new(content_type: &str, inner: R) -> Result<FormReader<R>, FormError> {
        let needle = [b"\r\n".as_slice(), &delimiter(content_type)?].concat();
        let needle = Finder::new(&needle).into_owned();
        let buffer = vec![0; BUFFER_BYTES];
        let place = Place::Preamble;
        Ok(FormReader { inner, buffer, start: 0, end: 0, needle, place, parts: 0, clear: 0, found: false })
    }

    /// Goes on to the next part, past what is unread of this one. `None` after the last, once the
    /// body has come to its end.
    pub fn next_part(&mut self) -> Result<Option<PartHead>, FormError> {
        let next = self.advance();
        self.keep(next)
    }

    /// Reads content of the current part into `out`, which must have room; zero at its end.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, FormError> {
        let ready = self.ready();
        let count = self.keep(ready)?.min(out.len());
        out[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.consume(count);
        Ok(count)
    }

    /// What is left of the current part, as a whole.
    ///
    /// # Errors
    /// [`FormError::TooLong`] when that is more than `limit` bytes; else as
    /// [`FormReader::next_part`].
    pub fn value(&mut self, limit: usize) -> Result<Vec<u8>, FormError> {
        let mut value = Vec::new();
        let mut piece = [0; 1024];
        loop {
            match self.read(&mut piece)? {
                0 => return Ok(value),
                count if value.len() + count > limit => return self.keep(Err(FormError::TooLong)),
                count => value.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn keep<T>(&mut self, result: Result<T, FormError>) -> Result<T, FormError> {
        if let Err(error) = &result {
            self.place = Place::Failed(*error);
        }
        result
    }

    fn advance(&mut self) -> Result<Option<PartHead>, FormError> {
        match self.place {
            Place::Failed(error) => return Err(error),
            Place::Ended => return Ok(None),
            Place::Preamble => self.skip_preamble()?,
            Place::Content => loop {
                match self.ready()? {
                    0 => break,
                    count => self.consume(count),
                }
            },
            Place::Delimiter => {}
        }
        let mark: [u8; 2] = match self.need(2)? {
            true => [self.buffer[self.start], self.buffer[self.start + 1]],
            false => return Err(FormError::Malformed),
        };
        self.start += 2;
        match &mark {
            // What follows the last delimiter means nothing, but it must come to its end.
            b"--" => {
                while self.more()? {
                    self.start = self.end;
                }
                self.place = Place::Ended;
                Ok(None)
            }
            b"\r\n" if self.parts == MAX_MULTIPART_PARTS => Err(FormError::TooManyParts),
            b"\r\n" => {
                self.parts += 1;
                let head = self.head()?;
                self.place = Place::Content;
                (self.clear, self.found) = (0, false);
                Ok(Some(head))
            }
            _ => Err(FormError::Malformed),
        }
    }

    /// Moves behind the first delimiter. What stands before it means nothing.
    fn skip_preamble(&mut self) -> Result<(), FormError> {
        let delimiter = Finder::new(&self.needle.needle()[2..]).into_owned();
        let length = delimiter.needle().len();
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = delimiter.find(unread) {
                // It begins a line. At zero, it begins the body: more was kept of anything else.
                if at > 0 && unread[at - 1] != b'\n' {
                    return Err(FormError::Malformed);
                }
                self.start += at + length;
                return Ok(());
            }
            // The beginning of a delimiter stays, and the byte before it.
            self.start += unread.len().saturating_sub(length);
            if !self.more()? {
                return Err(FormError::Malformed);
            }
        }
    }

    fn head(&mut self) -> Result<PartHead, FormError> {
        let mut headers = Headers::default();
        let mut left = MAX_PART_HEAD_BYTES;
        let mut first = true;
        loop {
            // A delimiter before the end of the head ends a part that has none.
            let length = self.needle.needle().len() - 2;
            if !first && self.need(length)? {
                let unread = &self.buffer[self.start..self.end];
                if unread.starts_with(&self.needle.needle()[2..]) {
                    return Err(FormError::Malformed);
                }
            }
            let end = loop {
                let unread = &self.buffer[self.start..self.end];
                match unread.windows(2).position(|two| two == b"\r\n") {
                    Some(end) if end + 2 <= left => break end,
                    None if unread.len() < left && self.more()? => {}
                    _ => return Err(FormError::Malformed),
                }
            };
            let named = headers.take(&self.buffer[self.start..self.start + end])?;
            self.start += end + 2;
            left -= end + 2;
            first = false;
            let Some((name, filename)) = named else { continue };
            if self.need(length)? && self.buffer[self.start..self.end].starts_with(&self.needle.needle()[2..])
            {
                return Err(FormError::Malformed);
            }
            return Ok(PartHead { name, filename });
        }
    }

    /// How many bytes of content are there to be read, at least one; zero at the end of the part.
    fn ready(&mut self) -> Result<usize, FormError> {
        loop {
            match self.place {
                Place::Failed(error) => return Err(error),
                Place::Content => {}
                _ => return Ok(0),
            }
            if self.clear > 0 {
                return Ok(self.clear);
            }
            if self.found {
                self.start += self.needle.needle().len();
                self.place = Place::Delimiter;
                return Ok(0);
            }
            let unread = &self.buffer[self.start..self.end];
            if let Some(at) = self.needle.find(unread) {
                (self.clear, self.found) = (at, true);
                continue;
            }
            // The beginning of a needle may be the last that has come.
            self.clear = (unread.len() + 1).saturating_sub(self.needle.needle().len());
            if self.clear == 0 && !self.more()? {
                return Err(FormError::Malformed);
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.clear -= count;
    }

    /// Reads until `count` bytes are there; `false` when the body ends before.
    fn need(&mut self, count: usize) -> Result<bool, FormError> {
        while self.end - self.start < count {
            if !self.more()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads more; `false` at the end of the body.
    fn more(&mut self) -> Result<bool, FormError> {
        // There is room then: nobody asks for more unless what is unread is short.
        if self.start == self.end || self.buffer.len() - self.end < BUFFER_BYTES / 2 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(FormError::Incomplete),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=XX";

    /// Gives its bytes in pieces of the sizes that `sizes` goes through, then ends or fails.
    struct Pieces<'a> {
        bytes: &'a [u8],
        sizes: Vec<usize>,
        turn: usize,
        breaks_off: bool,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let size = self.sizes[self.turn % self.sizes.len()].max(1);
            self.turn += 1;
            let count = size.min(out.len()).min(self.bytes.len());
            if count == 0 && self.breaks_off {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            out[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes = &self.bytes[count..];
            Ok(count)
        }
    }

    type Parts = Vec<(String, Option<String>, Vec<u8>)>;

    fn streamed(bytes: &[u8], sizes: &[usize], out: usize) -> Result<Parts, FormError> {
        let pieces = Pieces { bytes, sizes: sizes.to_vec(), turn: 0, breaks_off: false };
        collect(FormReader::new(TYPE, pieces)?, out)
    }

    fn collect<R: Read>(mut form: FormReader<R>, out: usize) -> Result<Parts, FormError> {
        let mut parts = Vec::new();
        let mut piece = vec![0; out];
        while let Some(head) = form.next_part()? {
            let mut content = Vec::new();
            loop {
                match form.read(&mut piece)? {
                    0 => break,
                    count => content.extend_from_slice(&piece[..count]),
                }
            }
            parts.push((head.name, head.filename, content));
        }
        assert_eq!(form.next_part(), Ok(None));
        assert_eq!(form.read(&mut piece), Ok(0));
        Ok(parts)
    }

    /// What a reader gets that is given everything at once.
    fn whole(bytes: &[u8]) -> Result<Parts, FormError> {
        streamed(bytes, &[usize::MAX], 4096)
    }

    fn sample() -> Vec<u8> {
        let mut sample = b"a preamble --X\r\n--XX\r\n".to_vec();
        sample.extend_from_slice(b"Content-Disposition: form-data; name=\"tags\"\r\n\r\ncpu,gpu\r\n--XX\r\n");
        sample.extend_from_slice(b"content-disposition: form-data; name=wheel; filename=\"a.whl\"\r\n");
        sample.extend_from_slice(
            b"Content-Type: application/zip\r\n\r\nPK\r\n--X\r\n\r\r\n--Xx\r\n-\r\n--XX\r\n",
        );
        sample.extend_from_slice(
            b"Content-Disposition: form-data; name=empty\r\n\r\n\r\n--XX--\r\nepilogue --XX\r\n",
        );
        sample
    }

    #[test]
    fn a_form_may_arrive_in_any_pieces() {
        let sample = sample();
        let expected = whole(&sample).unwrap();
        assert_eq!(expected.len(), 3);
        assert_eq!(expected[1].2, b"PK\r\n--X\r\n\r\r\n--Xx\r\n-");
        for split in 1..=sample.len() {
            for out in [1, 3, 4096] {
                let parts = streamed(&sample, &[split, sample.len()], out);
                assert_eq!(parts.as_ref(), Ok(&expected), "split at {split}, out {out}");
                assert_eq!(streamed(&sample, &[split], out).as_ref(), Ok(&expected), "of {split}");
            }
        }
    }

    #[test]
    fn pieces_make_no_difference_to_damaged_forms() {
        let sample = sample();
        let mut random = Random(7);
        let mut agreed = 0;
        for _ in 0..20_000 {
            let mut form = sample.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(form.len());
                let pieces = [&b"\r\n"[..], b"--XX", b"\r\n--XX", b"--", b"\r", b":", b"\xff", b""];
                let piece = pieces[random.below(pieces.len())];
                let end = (at + random.below(6)).min(form.len());
                form.splice(at..end, piece.iter().copied());
            }
            form.truncate(form.len() - random.below(8) * random.below(40) / 4);
            let sizes: Vec<usize> = (0..5).map(|_| 1 + random.below(30)).collect();
            let out = 1 + random.below(20);
            let (one, other) = (whole(&form), streamed(&form, &sizes, out));
            assert_eq!(one, other, "{:?}", String::from_utf8_lossy(&form));
            agreed += usize::from(one.is_ok());
        }
        assert!(agreed > 1000 && agreed < 19_000, "{agreed}");
    }

    #[test]
    fn a_form_larger_than_the_buffer_passes_through() {
        let mut random = Random(11);
        let content: Vec<u8> = (0..5 * BUFFER_BYTES + 77).map(|_| b"\r\n-Xa"[random.below(5)]).collect();
        let mut form = vec![b'p'; BUFFER_BYTES + 3];
        form.extend_from_slice(b"\n--XX\r\nContent-Disposition: x; name=w\r\n\r\n");
        form.extend_from_slice(&content);
        form.extend_from_slice(b"\r\n--XX--");
        form.extend_from_slice(&vec![b'e'; BUFFER_BYTES + 3]);
        // Random as it is, the content holds the delimiter itself now and then.
        let expected = whole(&form);
        for sizes in [vec![usize::MAX], vec![BUFFER_BYTES - 1, 5], vec![1000, 1]] {
            assert_eq!(streamed(&form, &sizes, 7000), expected, "{sizes:?}");
        }
        let quiet = String::from_utf8(form).unwrap().replace("\r\n--XX\r", "\r\n--XY\r");
        let parts = streamed(quiet.as_bytes(), &[usize::MAX], 7000);
        assert_eq!(parts, whole(quiet.as_bytes()));
    }

    #[test]
    fn no_part_is_the_last_until_the_body_has_ended() {
        let sample = sample();
        for cut in 0..=sample.len() {
            let bytes = &sample[..cut];
            let pieces = Pieces { bytes, sizes: vec![9], turn: 0, breaks_off: true };
            let mut form = FormReader::new(TYPE, pieces).unwrap();
            let error = loop {
                match form.next_part() {
                    Ok(part) => assert!(part.is_some(), "cut at {cut}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error, FormError::Incomplete, "cut at {cut}");
            assert_eq!(form.next_part(), Err(FormError::Incomplete));
            assert_eq!(form.read(&mut [0]), Err(FormError::Incomplete));
        }
    }

    #[test]
    fn heads_and_fields_are_bounded() {
        let head = format!("--XX\r\nA: {}\r\n", "x".repeat(MAX_PART_HEAD_BYTES));
        assert_eq!(streamed(head.as_bytes(), &[100], 10), Err(FormError::Malformed));
        let endless = format!("--XX\r\n{}", "x".repeat(2 * BUFFER_BYTES));
        assert_eq!(streamed(endless.as_bytes(), &[100], 10), Err(FormError::Malformed));
        let one = "--XX\r\nContent-Disposition: form-data; name=a\r\n\r\nv\r\n";
        let many = one.repeat(MAX_MULTIPART_PARTS + 1) + "--XX--";
        assert_eq!(streamed(many.as_bytes(), &[100], 10), Err(FormError::TooManyParts));
        let sample = sample();
        let mut form = FormReader::new(TYPE, &sample[..]).unwrap();
        form.next_part().unwrap();
        assert_eq!(form.value(7).unwrap(), b"cpu,gpu");
        form.next_part().unwrap();
        assert_eq!(form.value(7), Err(FormError::TooLong));
        assert_eq!(form.next_part(), Err(FormError::TooLong));
        assert!(FormReader::new("multipart/form-data", &b""[..]).is_err());
    }

    /// Numbers that look random and are the same each time (xorshift).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit.max(1) as u64) as usize
        }
    }
}
