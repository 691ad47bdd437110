//! JSON as the wire wants it: compact, ASCII only on the way out; Python's dialect on the way in.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::ser::{CharEscape, Formatter};

/// Compact JSON in ASCII, as NATS messages and SSE carry it. Fails only for a map key that is no string.
pub fn to_wire<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(512);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, AsciiFormatter))?;
    Ok(out)
}

/// Reads JSON that may come from Python: `NaN`, `Infinity` and `-Infinity` become `null`, a lone
/// surrogate escape becomes U+FFFD. Plain JSON takes the fast path.
pub fn from_wire<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        Err(first) => match neutralized(bytes) {
            Some(plain) => serde_json::from_slice(&plain),
            None => Err(first),
        },
    }
}

/// For fields in which other writers put `null` where they know nothing.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !c.is_ascii() || c == '\u{7f}') {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut chars = rest[at..].chars();
            if let Some(c) = chars.next() {
                let mut units = [0u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        char_escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, char_escape)
    }
}

/// The same text with Python's extensions replaced by plain JSON; `None` when it has none.
fn neutralized(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut changed = false;
    let mut in_string = false;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if in_string {
            match rest[0] {
                b'"' => in_string = false,
                b'\\' => {
                    let (taken, text) = escape_of(rest);
                    changed |= text != &rest[..taken];
                    out.extend_from_slice(text);
                    at += taken;
                    continue;
                }
                _ => {}
            }
        } else {
            if let Some(word) =
                [&b"-Infinity"[..], b"Infinity", b"NaN"].into_iter().find(|w| rest.starts_with(w))
            {
                out.extend_from_slice(b"null");
                at += word.len();
                changed = true;
                continue;
            }
            in_string = rest[0] == b'"';
        }
        out.push(rest[0]);
        at += 1;
    }
    changed.then_some(out)
}

/// How many bytes the escape at the start of `rest` takes, and what to write instead of it.
fn escape_of(rest: &[u8]) -> (usize, &[u8]) {
    const REPLACEMENT: &[u8] = b"\\ufffd";
    match hex_escape(rest) {
        None => (rest.len().min(2), &rest[..rest.len().min(2)]),
        Some(0xd800..=0xdbff) => match rest.get(6..).and_then(hex_escape) {
            Some(0xdc00..=0xdfff) => (12, &rest[..12]),
            _ => (6, REPLACEMENT),
        },
        Some(0xdc00..=0xdfff) => (6, REPLACEMENT),
        Some(_) => (6, &rest[..6]),
    }
}

fn hex_escape(rest: &[u8]) -> Option<u16> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn output_is_compact_ascii() {
        let value = json!({"é": "日本 \u{1f600}", "n": [1, 2.0, null], "q": "a\"\n\u{7f}"});
        let wire = String::from_utf8(to_wire(&value).unwrap()).unwrap();
        assert_eq!(
            wire,
            "{\"\\u00e9\":\"\\u65e5\\u672c \\ud83d\\ude00\",\"n\":[1,2.0,null],\"q\":\"a\\\"\\n\\u007f\"}"
        );
        assert_eq!(from_wire::<Value>(wire.as_bytes()).unwrap(), value);
    }

    #[test]
    fn pythons_extensions_are_read_as_null() {
        let text = br#"{"a":NaN,"b":[Infinity,-Infinity],"s":"NaN \" Infinity \\","l":"x\ud800y"}"#;
        assert_eq!(
            from_wire::<Value>(text).unwrap(),
            json!({"a": null, "b": [null, null], "s": "NaN \" Infinity \\", "l": "x\u{fffd}y"})
        );
    }

    #[test]
    fn times_are_read_back_exactly() {
        // A fast reader is off by one in the last place here, and a time is what tells two submits
        // and two places in a list apart.
        for at in [1_795_188_551.730_913_9, 1_795_182_726.877_709_6] {
            assert_eq!(from_wire::<f64>(&to_wire(&at).unwrap()).unwrap(), at);
        }
        for step in 0..10_000 {
            let at = 1_795_182_726.0 + f64::from(step) * 0.000_123_457;
            assert_eq!(from_wire::<f64>(&to_wire(&at).unwrap()).unwrap(), at);
        }
    }

    #[test]
    fn garbage_stays_an_error() {
        for bad in [&b"{"[..], b"NaN NaN", b"\"\\", b"\"\\u12", b"", b"\xff"] {
            assert!(from_wire::<Value>(bad).is_err(), "{bad:?}");
        }
    }
}
