//! Which value a YAML scalar stands for: the YAML 1.1 rules of PyYAML's `SafeLoader`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::node::Node;
use super::timestamp;

#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    Value(Node),
    /// `<<`: as a key it merges, elsewhere it is refused.
    Merge,
    /// `=`: as a key it is text, elsewhere it is refused.
    Default,
}

/// The prefix of the tags that YAML itself defines.
pub const YAML_TAG_PREFIX: &str = "tag:yaml.org,2002:";

/// A plain scalar without a tag. Fails when its form is that of a number or date without a value (`0x_`).
pub fn plain(text: &str) -> Result<Resolved, &'static str> {
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => Node::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Node::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Node::Bool(false),
        "<<" => return Ok(Resolved::Merge),
        "=" => return Ok(Resolved::Default),
        // Every number and date begins with one of these; everything else is text.
        _ if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => {
            Node::Str(text.to_owned())
        }
        _ if is_float(text) => Node::Float(float(text).ok_or("not a float")?),
        _ if is_int(text) => int(text).ok_or("not an integer")?,
        _ => match timestamp::parse(text) {
            Some(time) => Node::Timestamp(time?),
            None => Node::Str(text.to_owned()),
        },
    };
    Ok(Resolved::Value(value))
}

/// A scalar with one of YAML's own tags, given without its prefix.
pub fn tagged(suffix: &str, text: &str) -> Result<Resolved, &'static str> {
    let value = match suffix {
        "str" => Node::Str(text.to_owned()),
        "null" => Node::Null,
        "bool" => match text.to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" => Node::Bool(true),
            "no" | "false" | "off" => Node::Bool(false),
            _ => return Err("not a boolean"),
        },
        "int" => int(text).ok_or("not an integer")?,
        "float" => Node::Float(float(text).ok_or("not a float")?),
        "timestamp" => Node::Timestamp(timestamp::parse(text).ok_or("not a timestamp")??),
        "binary" => {
            let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = STANDARD.decode(packed).map_err(|_| "not base64")?;
            Node::Binary(STANDARD.encode(bytes))
        }
        "merge" => return Ok(Resolved::Merge),
        "value" => return Ok(Resolved::Default),
        _ => return Err("a tag that is not for plain data"),
    };
    Ok(Resolved::Value(value))
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn some_of(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(|b| allowed(b) || b == b'_')
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// A part of a sexagesimal number after the first: `0` to `59`, one or two digits.
fn is_sixtieth(text: &str) -> bool {
    match text.as_bytes() {
        [unit] => unit.is_ascii_digit(),
        [ten, unit] => (b'0'..=b'5').contains(ten) && unit.is_ascii_digit(),
        _ => false,
    }
}

fn is_int(text: &str) -> bool {
    let text = unsigned(text);
    if let Some(digits) = text.strip_prefix("0b") {
        return some_of(digits, |b| matches!(b, b'0' | b'1'));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return some_of(digits, |b| b.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix('0') {
        return digits.is_empty() || some_of(digits, |b| (b'0'..=b'7').contains(&b));
    }
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    starts_with_digit(first) && some_of(first, |b| b.is_ascii_digit()) && parts.all(is_sixtieth)
}

/// A float has a dot, always: `1e3` is text.
fn is_float(text: &str) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let signed = text;
    let text = unsigned(text);
    if matches!(text, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let Some((whole, fraction)) = text.split_once('.') else { return false };
    if let Some((first, sixtieths)) = whole.split_once(':') {
        return starts_with_digit(first)
            && some_of(first, |b| b.is_ascii_digit())
            && sixtieths.split(':').all(is_sixtieth)
            && (fraction.is_empty() || some_of(fraction, |b| b.is_ascii_digit()));
    }
    let (fraction, exponent) = match fraction.find(['e', 'E']) {
        Some(at) => (&fraction[..at], Some(&fraction[at + 1..])),
        None => (fraction, None),
    };
    if let Some(exponent) = exponent {
        // The sign is not optional.
        let Some(digits) = exponent.strip_prefix(['-', '+']) else { return false };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
    }
    let fraction_fits = fraction.is_empty() || some_of(fraction, |b| b.is_ascii_digit());
    if whole.is_empty() {
        // `.5` is a float, `-.5` is text: so says PyYAML's pattern.
        signed.starts_with('.') && starts_with_digit(fraction) && fraction_fits
    } else {
        starts_with_digit(whole) && some_of(whole, |b| b.is_ascii_digit()) && fraction_fits
    }
}

fn int(text: &str) -> Option<Node> {
    let text = text.replace('_', "");
    let negative = text.starts_with('-');
    let digits = unsigned(&text);
    let magnitude = if digits == "0" {
        Magnitude::Exact(0)
    } else if let Some(digits) = digits.strip_prefix("0b") {
        in_base(digits, 2)?
    } else if let Some(digits) = digits.strip_prefix("0x") {
        in_base(digits, 16)?
    } else if digits.starts_with('0') {
        in_base(digits, 8)?
    } else if digits.contains(':') {
        sexagesimal(digits)?
    } else {
        in_base(digits, 10)?
    };
    Some(match magnitude {
        Magnitude::Exact(value) => Node::Int(if negative { -value } else { value }),
        Magnitude::Rough(value) => Node::Float(if negative { -value } else { value }),
    })
}

enum Magnitude {
    Exact(i128),
    Rough(f64),
}

fn in_base(digits: &str, base: u32) -> Option<Magnitude> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    if let Ok(value) = i128::from_str_radix(digits, base) {
        return Some(Magnitude::Exact(value));
    }
    let rough = if base == 10 {
        digits.parse().ok()?
    } else {
        digits
            .chars()
            .filter_map(|c| c.to_digit(base))
            .fold(0.0, |sum, digit| sum * f64::from(base) + f64::from(digit))
    };
    Some(Magnitude::Rough(rough))
}

fn sexagesimal(digits: &str) -> Option<Magnitude> {
    let mut exact = Some(0i128);
    let mut rough = 0.0;
    for part in digits.split(':') {
        let (part_exact, part_rough) = match in_base(part, 10)? {
            Magnitude::Exact(value) => (Some(value), value as f64),
            Magnitude::Rough(value) => (None, value),
        };
        exact = exact
            .zip(part_exact)
            .and_then(|(sum, part)| sum.checked_mul(60).and_then(|sum| sum.checked_add(part)));
        rough = rough * 60.0 + part_rough;
    }
    Some(exact.map_or(Magnitude::Rough(rough), Magnitude::Exact))
}

fn float(text: &str) -> Option<f64> {
    let text = text.replace('_', "").to_ascii_lowercase();
    let digits = unsigned(&text);
    let magnitude = match digits {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ if digits.contains(':') => {
            // From the last part to the first, as Python adds them: rounding is part of the value.
            let mut sum = 0.0;
            let mut weight = 1.0;
            for part in digits.rsplit(':') {
                sum += decimal(part)? * weight;
                weight *= 60.0;
            }
            sum
        }
        _ => decimal(digits)?,
    };
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}

/// A float without a sign; Rust's words for infinity and not-a-number are not among them.
fn decimal(text: &str) -> Option<f64> {
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '.') { text.parse().ok() } else { None }
}
