//! The dashboard: a page and its files, built into the program.
//!
//! The files are plain HTML, CSS and JavaScript modules, and the browser may load and call nothing but this
//! gateway ([`POLICY`]). They hold no data, so they need no key: what is shown comes over the same routes
//! that any client uses, with the visitor's key. This module knows nothing of runs or NATS.

mod files;

use std::time::Duration;

use crate::http::cached::Cached;
use crate::http::{Reply, Request};

/// What the browser lets the page do: scripts, styles and pictures of this gateway alone, requests to
/// it alone, no text ever read as HTML, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// A language of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lang {
    /// Japanese.
    Ja,
    /// English.
    En,
}

struct Asset {
    name: &'static str,
    file: Cached,
}

/// The page in a language, for a gateway whose keys come in `key_header` and whose cancels get `grace`.
pub fn index(request: &Request, lang: Lang, key_header: &str, grace: Duration) -> Reply {
    let text = files::INDEX
        .replace("{lang}", lang.as_str())
        .replace("{version}", crate::VERSION)
        .replace("{key_header}", &escaped(key_header))
        .replace("{cancel_grace_sec}", &grace.as_secs_f64().to_string());
    answer(request, &Cached::new("text/html; charset=utf-8", text.into_bytes()))
}

/// A file that the page loads.
pub fn file(request: &Request, name: &str) -> Option<Reply> {
    let asset = files::ASSETS.iter().find(|asset| asset.name == name)?;
    Some(answer(request, &asset.file))
}

/// The bytes, or 304, with the headers that say what the browser may do with them.
fn answer(request: &Request, cached: &Cached) -> Reply {
    cached
        .answer(request)
        .with_header("Content-Security-Policy", POLICY)
        .with_header("Referrer-Policy", "no-referrer")
        .with_header("Cross-Origin-Resource-Policy", "same-origin")
}

/// For an attribute between double quotes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

impl Lang {
    /// `ja` or `en`, in any case and with any region (`ja-JP`).
    pub fn from_word(word: &str) -> Option<Lang> {
        match word.split(['-', '_', '.']).next()?.to_ascii_lowercase().as_str() {
            "ja" => Some(Lang::Ja),
            "en" => Some(Lang::En),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Lang::Ja => "ja",
            Lang::En => "en",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_read_from_words_and_locales() {
        for (word, expected) in [
            ("ja", Some(Lang::Ja)),
            ("ja_JP.UTF-8", Some(Lang::Ja)),
            ("EN-gb", Some(Lang::En)),
            ("", None),
            ("C", None),
            ("jav", None),
        ] {
            assert_eq!(Lang::from_word(word), expected, "{word}");
        }
    }

    #[test]
    fn nothing_leaves_its_attribute() {
        assert_eq!(escaped("a\"><b>&"), "a&quot;>&lt;b>&amp;");
    }
}
