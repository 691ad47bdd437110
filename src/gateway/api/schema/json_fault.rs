//! Says what is wrong with a text that is no JSON, and where, as Python's decoder says it.
//!
//! Clients that were written against the Python gateway show these words to people. The text has
//! been refused by then; this only finds the place, without recursion.

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: usize,
    pub words: &'static str,
}

/// What stands between the present place and the end.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Object,
    Array,
}

/// The first fault of `text`; `None` when Python would take it.
pub(super) fn find(text: &str) -> Option<Fault> {
    let (at, words) = Scan { bytes: text.as_bytes(), at: 0 }.document().err()?;
    let at = text.char_indices().take_while(|(byte, _)| *byte < at).count();
    Some(Fault { at, words })
}

type Found<T = ()> = Result<T, (usize, &'static str)>;

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn document(&mut self) -> Found {
        let mut open: Vec<Open> = Vec::new();
        self.space();
        loop {
            // A value begins here.
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    self.space();
                    if self.peek() != Some(b'}') {
                        self.name()?;
                        open.push(Open::Object);
                        continue;
                    }
                    self.at += 1;
                }
                Some(b'[') => {
                    self.at += 1;
                    self.space();
                    if self.peek() != Some(b']') {
                        open.push(Open::Array);
                        continue;
                    }
                    self.at += 1;
                }
                Some(b'"') => self.string()?,
                _ => self.word_or_number()?,
            }
            // A value has ended; so may what holds it.
            loop {
                self.space();
                let Some(holder) = open.last().copied() else {
                    let end = self.at == self.bytes.len();
                    return if end { Ok(()) } else { Err((self.at, "Extra data")) };
                };
                match (holder, self.peek()) {
                    (Open::Object, Some(b'}')) | (Open::Array, Some(b']')) => {
                        self.at += 1;
                        open.pop();
                    }
                    (holder, Some(b',')) => {
                        self.at += 1;
                        self.space();
                        if holder == Open::Object {
                            self.name()?;
                        }
                        break;
                    }
                    _ => return Err((self.at, "Expecting ',' delimiter")),
                }
            }
        }
    }

    fn name(&mut self) -> Found {
        if self.peek() != Some(b'"') {
            return Err((self.at, "Expecting property name enclosed in double quotes"));
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err((self.at, "Expecting ':' delimiter"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn string(&mut self) -> Found {
        let begin = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err((begin, "Unterminated string starting at")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(..=0x1f) => return Err((self.at, "Invalid control character at")),
                Some(b'\\') => {
                    let escape = self.at;
                    self.at += 1;
                    match self.peek() {
                        None => return Err((begin, "Unterminated string starting at")),
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                        Some(b'u') => {
                            let digits = self.bytes.get(self.at + 1..self.at + 5);
                            // Python wants one more character behind them.
                            let followed = self.at + 5 < self.bytes.len();
                            let hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
                            if !followed || !digits.is_some_and(hex) {
                                return Err((self.at, "Invalid \\uXXXX escape"));
                            }
                            self.at += 4;
                        }
                        Some(_) => return Err((escape, "Invalid \\escape")),
                    }
                    self.at += 1;
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn word_or_number(&mut self) -> Found {
        let rest = &self.bytes[self.at..];
        const WORDS: [&[u8]; 6] = [b"null", b"true", b"false", b"NaN", b"Infinity", b"-Infinity"];
        if let Some(word) = WORDS.iter().find(|word| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(());
        }
        let begin = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err((begin, "Expecting value")),
        }
        if self.peek() == Some(b'.') && self.is_digit(1) {
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.bytes.get(self.at + 1), Some(b'+' | b'-')));
            if self.is_digit(1 + sign) {
                self.at += 1 + sign;
                self.digits();
            }
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.is_digit(0) {
            self.at += 1;
        }
    }

    fn is_digit(&self, ahead: usize) -> bool {
        self.bytes.get(self.at + ahead).is_some_and(u8::is_ascii_digit)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found_where_python_finds_them() {
        for (text, at, words) in [
            ("", 0, "Expecting value"),
            ("[", 1, "Expecting value"),
            ("[1,]", 3, "Expecting value"),
            ("[1 2]", 3, "Expecting ',' delimiter"),
            ("{", 1, "Expecting property name enclosed in double quotes"),
            ("{\"a\":1,}", 7, "Expecting property name enclosed in double quotes"),
            ("{\"a\"", 4, "Expecting ':' delimiter"),
            ("{\"a\":", 5, "Expecting value"),
            ("{\"a\":{\"b\":[]}", 13, "Expecting ',' delimiter"),
            ("01", 1, "Extra data"),
            ("1.", 1, "Extra data"),
            ("1e", 1, "Extra data"),
            ("1e+", 1, "Extra data"),
            ("[-]", 1, "Expecting value"),
            ("NaN x", 4, "Extra data"),
            ("{\"é\":1} x", 8, "Extra data"),
            ("\"\t\"", 1, "Invalid control character at"),
            ("{\"a\":\"\\", 5, "Unterminated string starting at"),
            ("\"a\\u12x4\"", 3, "Invalid \\uXXXX escape"),
            ("\"\\u1234", 2, "Invalid \\uXXXX escape"),
        ] {
            assert_eq!(find(text), Some(Fault { at, words }), "{text}");
        }
    }

    #[test]
    fn what_is_json_has_no_fault_however_deep() {
        let deep = format!("{}1{}", "[{\"a\":".repeat(100_000), "}]".repeat(100_000));
        for text in ["{}", " [ ] ", "{\"a\": [1, -2.5e+3, \"\\u00e9\\n/\"], \"b\": null}", "-Infinity", &deep]
        {
            assert_eq!(find(text), None);
        }
    }
}
