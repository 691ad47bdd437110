//! A wheel as the registry shows it (`docs/spec.md#get-wheels`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::limits::MAX_WHEEL_TAGS;
use crate::model::name::is_tag;

/// Among the object's headers: the tags, separated by commas. A plain string, not a list.
pub const TAGS_HEADER: &str = "x-pyoco-wheel-tags";
/// Among the object's headers: the SHA-256 of the bytes in hex.
pub const SHA256_HEADER: &str = "sha256";
/// What a wheel is served and stored as.
pub const CONTENT_TYPE: &str = "application/octet-stream";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WheelItem {
    pub name: String,
    #[serde(default)]
    pub size_bytes: u64,
    #[serde(default)]
    pub bucket: String,
    /// Which upload it is from; another one when the bytes are others.
    pub nuid: Option<String>,
    pub digest: Option<String>,
    pub sha256_b64: Option<String>,
    pub sha256_hex: Option<String>,
    /// When it was stored (RFC 3339).
    pub mtime: Option<String>,
    pub modified: Option<f64>,
    /// Which workers get it: those that serve one of these tags; all of them when there is none.
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Tags of a form or a header: separated by commas, spaces around them ignored, each counted once.
pub fn parse_tags(text: &str) -> Result<Vec<String>, String> {
    let mut tags: Vec<String> = Vec::new();
    for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
        if !is_tag(tag) {
            return Err(format!("`{tag}` is no tag"));
        }
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    match tags.len() {
        ..=MAX_WHEEL_TAGS => Ok(tags),
        count => Err(format!("{count} tags are too many; at most {MAX_WHEEL_TAGS}")),
    }
}

/// What is no tag is left out.
pub fn tags_of(headers: &Map<String, Value>) -> Vec<String> {
    let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(TAGS_HEADER));
    let text = match header.map(|(_, value)| value) {
        Some(Value::String(text)) => text.as_str(),
        // As other clients of object stores write headers.
        Some(Value::Array(values)) => values.first().and_then(Value::as_str).unwrap_or_default(),
        _ => "",
    };
    let tags = text.split(',').map(str::trim).filter(|tag| is_tag(tag));
    tags.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tags_are_read_leniently_and_checked() {
        assert_eq!(parse_tags(" cpu, linux,,cpu ").unwrap(), ["cpu", "linux"]);
        assert!(parse_tags("").unwrap().is_empty());
        assert!(parse_tags("a.b").is_err() && parse_tags("a b").is_err());
        let many: Vec<_> = (0..=MAX_WHEEL_TAGS).map(|n| n.to_string()).collect();
        assert!(parse_tags(&many.join(",")).is_err());
    }

    #[test]
    fn tags_stand_in_a_plain_string() {
        let tags = |value: Value| tags_of(value.as_object().unwrap());
        assert_eq!(tags(json!({"x-pyoco-wheel-tags": "cpu,linux"})), ["cpu", "linux"]);
        assert_eq!(tags(json!({"X-Pyoco-Wheel-Tags": ["cpu, a.b"]})), ["cpu"]);
        assert!(tags(json!({"sha256": "x"})).is_empty() && tags(json!({"x-pyoco-wheel-tags": 1})).is_empty());
    }
}
