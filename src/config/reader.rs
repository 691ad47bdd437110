//! Reads typed values by name and remembers what it found, for warnings and `config show`.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::source::{Origin, Source};
use crate::model::name;

/// Longest duration that a setting may name: ten years, far from any overflow.
const MAX_SECONDS: f64 = 10.0 * 365.25 * 86_400.0;
const NOT_A_NAME: &str = "must match [A-Za-z0-9_-]+";

/// One variable as `config show` lists it; secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name of the variable, such as `PYOCO_NATS_URL`.
    pub name: &'static str,
    /// Its value in force, empty when unset.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// A value that does not parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Name of the variable, such as `PYOCO_NATS_URL`.
    pub name: &'static str,
    /// What is wrong with it; never contains a secret.
    pub problem: String,
}

impl Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; using the default", self.name, self.problem)
    }
}

pub(super) struct Reader<'a> {
    source: &'a Source,
    warnings: Vec<Warning>,
    settings: Vec<Setting>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Reader { source, warnings: Vec::new(), settings: Vec::new() }
    }

    pub(super) fn finish(self) -> (Vec<Warning>, Vec<Setting>) {
        (self.warnings, self.settings)
    }

    pub(super) fn string(&mut self, name: &'static str, default: &str) -> String {
        self.parsed(name, default, default.to_owned(), |text| Ok(text.to_owned()))
    }

    pub(super) fn optional(&mut self, name: &'static str) -> Option<String> {
        self.parsed(name, "", None, |text| Ok(Some(text.to_owned())))
    }

    pub(super) fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        // Whole, because files are read again whenever a connection is made, and a directory may go.
        self.optional(name).map(|text| std::path::absolute(&text).unwrap_or_else(|_| PathBuf::from(text)))
    }

    pub(super) fn secret(&mut self, name: &'static str) -> Option<String> {
        let value = self.optional(name);
        self.mask_last(|shown| if shown.is_empty() { String::new() } else { "***".to_owned() });
        value
    }

    pub(super) fn url(&mut self, name: &'static str, default: &str) -> String {
        let value = self.string(name, default);
        self.mask_last(masked_url);
        value
    }

    pub(super) fn seconds(&mut self, name: &'static str, default: f64) -> Duration {
        self.duration(name, default, parse_positive_seconds)
    }

    pub(super) fn seconds_or_zero(&mut self, name: &'static str, default: f64) -> Duration {
        self.duration(name, default, |text| {
            in_seconds(text, |s| s >= 0.0).ok_or_else(|| "must be a number of seconds, 0 or more".to_owned())
        })
    }

    pub(super) fn optional_seconds(&mut self, name: &'static str) -> Option<Duration> {
        self.parsed(name, "", None, |text| parse_positive_seconds(text).map(Some))
    }

    pub(super) fn number<T: FromStr + PartialOrd + Display>(
        &mut self,
        name: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        self.parsed(name, &default.to_string(), default, |text| in_range(text, &range))
    }

    pub(super) fn optional_count(
        &mut self,
        name: &'static str,
        range: RangeInclusive<usize>,
    ) -> Option<usize> {
        self.parsed(name, "", None, |text| in_range(text, &range).map(Some))
    }

    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.parsed(name, if default { "true" } else { "false" }, default, |text| {
            match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Ok(true),
                "0" | "false" | "no" | "off" => Ok(false),
                _ => Err("must be true or false".to_owned()),
            }
        })
    }

    /// The first choice is the default.
    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> T {
        let (default_word, default) = choices[0];
        self.parsed(name, default_word, default, |text| {
            let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
            found.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                format!("must be one of {}", words.join(", "))
            })
        })
    }

    /// A tag, or the name of a stream or bucket, whose alphabet is the same.
    pub(super) fn name(&mut self, name: &'static str, default: &str) -> String {
        self.checked(name, default, name::is_tag, NOT_A_NAME)
    }

    pub(super) fn optional_name(&mut self, name: &'static str) -> Option<String> {
        self.parsed(name, "", None, |text| match name::is_tag(text) {
            true => Ok(Some(text.to_owned())),
            false => Err(NOT_A_NAME.to_owned()),
        })
    }

    pub(super) fn subject(&mut self, name: &'static str, default: &str) -> String {
        self.checked(name, default, name::is_subject, "must be a NATS subject without wildcards")
    }

    pub(super) fn header(&mut self, name: &'static str, default: &str) -> String {
        self.checked(name, default, name::is_tag, "must be an HTTP header name")
    }

    fn checked(&mut self, name: &'static str, default: &str, ok: fn(&str) -> bool, problem: &str) -> String {
        self.parsed(name, default, default.to_owned(), |text| {
            if ok(text) { Ok(text.to_owned()) } else { Err(problem.to_owned()) }
        })
    }

    fn duration(
        &mut self,
        name: &'static str,
        default: f64,
        parse: fn(&str) -> Result<Duration, String>,
    ) -> Duration {
        self.parsed(name, &default.to_string(), Duration::from_secs_f64(default), parse)
    }

    /// Any value: `parse` says what is wrong with one that it cannot take.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        default_shown: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let unset = (default_shown.to_owned(), Origin::Default);
        let (value, (shown, origin)) = match self.source.get(name) {
            None => (default, unset),
            Some((text, origin)) => match parse(text.trim()) {
                Ok(value) => (value, (text.trim().to_owned(), origin)),
                Err(problem) => {
                    self.warnings.push(Warning { name, problem });
                    (default, unset)
                }
            },
        };
        self.settings.push(Setting { name, value: shown, origin });
        value
    }

    fn mask_last(&mut self, mask: impl FnOnce(&str) -> String) {
        if let Some(last) = self.settings.last_mut() {
            last.value = mask(&last.value);
        }
    }
}

/// A NATS URL list as it may be shown: without user, password or token.
pub fn masked_url(url: &str) -> String {
    let mask_one = |one: &str| {
        let (scheme, rest) = one.split_once("://").unwrap_or(("nats", one));
        match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{host}"),
            None => one.to_owned(),
        }
    };
    url.split(',').map(|one| mask_one(one.trim())).collect::<Vec<_>>().join(",")
}

/// A duration in seconds, above 0 and at most ten years.
pub fn parse_positive_seconds(text: &str) -> Result<Duration, String> {
    in_seconds(text, |s| s > 0.0).ok_or_else(|| "must be a number of seconds above 0".to_owned())
}

fn in_seconds(text: &str, is_good: fn(f64) -> bool) -> Option<Duration> {
    let seconds = text.parse::<f64>().ok().filter(|s| *s <= MAX_SECONDS && is_good(*s))?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn in_range<T: FromStr + PartialOrd + Display>(text: &str, range: &RangeInclusive<T>) -> Result<T, String> {
    text.parse::<T>()
        .ok()
        .filter(|n| range.contains(n))
        .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
}
