//! The dashboard: a page and its files, built into the program.
//!
//! The files are plain HTML, CSS and JavaScript modules; nothing is built or fetched, and the browser
//! may load and call nothing but this gateway ([`POLICY`]). They hold no data: everything that is
//! shown comes over the same routes that any client uses, with the key that the visitor gives. So
//! page and files need no key. This module knows nothing of runs or NATS.

mod files;

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::Gateway;
use super::error::ApiError;
use super::http::{Reply, Request};
use super::schema::Query;

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

/// What the page is told when it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DashboardSettings {
    /// Language of visitors who have not chosen one.
    pub lang: Lang,
    /// The header that a key goes into.
    pub api_key_header: String,
}

impl Default for DashboardSettings {
    /// English, and the header that is the default of `PYOCO_HTTP_API_KEY_HEADER`.
    fn default() -> Self {
        DashboardSettings { lang: Lang::En, api_key_header: "X-API-Key".to_owned() }
    }
}

/// A file of the dashboard.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
    etag: String,
}

/// `GET /`: the page, in the language of `?lang=` or the one that is set.
///
/// # Errors
/// None.
pub fn page(gateway: &Gateway, request: &mut Request, _: &[String]) -> Result<Reply, ApiError> {
    let asked = Query::parse(request.query()).last("lang").and_then(Lang::from_word);
    let settings = &gateway.settings.dashboard;
    let grace = gateway.settings.cancel_grace.as_secs_f64();
    let text = files::INDEX
        .replace("{lang}", asked.unwrap_or(settings.lang).as_str())
        .replace("{version}", crate::VERSION)
        .replace("{key_header}", &escaped(&settings.api_key_header))
        .replace("{cancel_grace_sec}", &grace.to_string());
    let etag = etag(text.as_bytes());
    Ok(answer(request, "text/html; charset=utf-8", text.into_bytes(), etag))
}

/// `GET /static/{name}`: a file that the page loads.
///
/// # Errors
/// [`ApiError::UnknownPath`].
pub fn file(_: &Gateway, request: &mut Request, params: &[String]) -> Result<Reply, ApiError> {
    let asset = files::ASSETS.iter().find(|asset| asset.name == params[0]);
    let asset = asset.ok_or(ApiError::UnknownPath)?;
    Ok(answer(request, asset.content_type, asset.text.as_bytes(), asset.etag.clone()))
}

/// The bytes, or 304 when the browser has them already. It asks each time, so that after an upgrade
/// no page is made of old and new files.
fn answer(
    request: &Request,
    content_type: &'static str,
    bytes: impl Into<Cow<'static, [u8]>>,
    etag: String,
) -> Reply {
    let known = request.header("If-None-Match").unwrap_or_default();
    let is_known = known.split(',').any(|one| one.trim().trim_start_matches("W/") == etag);
    let reply = match is_known {
        true => Reply::empty(304),
        false => Reply::bytes(200, content_type, bytes),
    };
    reply
        .with_header("ETag", etag)
        .with_header("Cache-Control", "no-cache")
        .with_header("Content-Security-Policy", POLICY)
        .with_header("Referrer-Policy", "no-referrer")
        .with_header("Cross-Origin-Resource-Policy", "same-origin")
}

fn etag(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
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
