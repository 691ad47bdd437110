//! A source file as the rules see it: its text, and its code without comments, strings and tests.

use std::fs;
use std::path::Path;

/// One file.
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Same length and lines, with comments and the contents of literals blanked.
    pub code: String,
    /// `code` with everything under `#[cfg(test)]` blanked too.
    pub product: String,
}

impl Source {
    /// Reads a file below the root.
    pub fn read(path: &Path) -> Source {
        let text = fs::read_to_string(super::root().join(path)).unwrap();
        Source::new(&path.to_string_lossy().replace('\\', "/"), &text)
    }

    /// Takes a text apart.
    pub fn new(path: &str, text: &str) -> Source {
        let code = without_comments_and_literals(text);
        let product = without_tests(&code);
        Source { path: path.to_owned(), text: text.to_owned(), code, product }
    }

    /// The line (from 1) of a byte position.
    pub fn line_at(&self, position: usize) -> usize {
        self.code.as_bytes()[..position].iter().filter(|b| **b == b'\n').count() + 1
    }
}

/// All places where `word` stands in `code` as a whole word.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !preceded_by_word(bytes, at) => raw_string_end(bytes, at).unwrap_or(at + 1),
            b'b' if bytes[at..].starts_with(b"br") && !preceded_by_word(bytes, at) => {
                raw_string_end(bytes, at + 1).unwrap_or(at + 1)
            }
            b'\'' => char_end(bytes, at).unwrap_or(at + 1),
            _ => at + 1,
        };
        if end > at + 1 {
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end;
    }
    // Only whole literals and comments were blanked, so no character was cut in two.
    String::from_utf8(out).unwrap()
}

fn preceded_by_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(char::from(bytes[at - 1])) && bytes[at - 1] != b'b'
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r"…"` or `r#"…"#`; `None` when this `r` begins no raw string.
fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|b| **b == b'#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let body = &bytes[open + 1..];
    let length = body.windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| open + 1 + length + close.len()))
}

/// The end of a character literal; `None` when this quote begins a lifetime.
fn char_end(bytes: &[u8], start: usize) -> Option<usize> {
    let rest = std::str::from_utf8(&bytes[start + 1..]).ok()?;
    let mut chars = rest.char_indices();
    if chars.next()?.1 == '\\' {
        chars.next()?;
        let close = rest[2..].find('\'')?;
        return Some(start + 1 + 2 + close + 1);
    }
    let (second, quote) = chars.next()?;
    (quote == '\'').then_some(start + 1 + second + 1)
}

/// Blanks each item that follows a `#[cfg(test)]`, up to its closing brace or semicolon.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find(MARK) {
        let start = from + found;
        let mut depth = 0;
        let mut end = code.len();
        for (offset, byte) in code.as_bytes()[start..].iter().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b';' if depth == 0 => {}
                _ => continue,
            }
            if depth == 0 {
                end = start + offset + 1;
                break;
            }
        }
        for byte in &mut out[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn comments_and_literals_are_blanked_and_lines_stay() {
    let text = "a // b\n/* c /* d */ */ e\nlet s = \"f \\\" g\"; 'h'; '\\'' ; br#\"i\"j\"#; &'k str";
    let code = Source::new("x.rs", text).code;
    for gone in ["b", "c", "d", "f", "g", "h", "i", "j"] {
        assert_eq!(words(&code, gone).count(), 0, "{gone}: {code}");
    }
    for kept in ["a", "e", "s", "k", "str"] {
        assert_eq!(words(&code, kept).count(), 1, "{kept}: {code}");
    }
    assert_eq!(code.lines().count(), 3);
    assert_eq!(code.len(), text.len());
}

#[test]
fn tests_are_no_product() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}\n#[cfg(test)]\nuse d;\nfn e() {}";
    let product = Source::new("x.rs", text).product;
    assert_eq!(words(&product, "b").count() + words(&product, "d").count(), 0);
    assert_eq!(["a", "c", "e"].map(|name| words(&product, name).count()), [1, 1, 1]);
}
