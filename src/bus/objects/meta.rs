//! What an object store says of an object, as `nats-py` and the other clients write it.

use base64::Engine;
use base64::alphabet::URL_SAFE as URL_SAFE_ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE};
use serde_json::{Map, Value, json};

use crate::bus::{Error, Result};

const DIGEST_TYPE: &str = "SHA-256=";
/// Some writers leave the padding out.
const URL_SAFE_LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE_ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug, Clone, PartialEq)]
pub struct ObjectMeta {
    pub name: String,
    pub bucket: String,
    /// Which upload its bytes are from.
    pub nuid: String,
    /// Its bytes; 0 when it was deleted.
    pub size: u64,
    pub chunks: u64,
    /// When it was stored (RFC 3339), by the clock of who did; empty when it was deleted.
    pub mtime: String,
    /// `SHA-256=` and the hash in base64url; empty when it was deleted.
    pub digest: String,
    pub deleted: bool,
    pub headers: Map<String, Value>,
    /// The chunk size, and for a link where it leads.
    pub options: Value,
    /// Sequence of the meta's message in the store's stream: the base of a compare-and-set.
    pub revision: u64,
    pub extra: Map<String, Value>,
}

impl ObjectMeta {
    /// Missing fields and `null` are as good as empty ones.
    pub(crate) fn read(name: &str, revision: u64, data: &[u8]) -> Result<ObjectMeta> {
        let bad = |why: &str| Error::BadAnswer(format!("meta of object `{name}`: {why}"));
        let mut fields: Map<String, Value> = serde_json::from_slice(data).map_err(|e| bad(&e.to_string()))?;
        let mut take = |field: &str| fields.shift_remove(field).unwrap_or_default();
        let text = |value: Value| match value {
            Value::String(text) => text,
            _ => String::new(),
        };
        let number = |value: Value| match value {
            Value::Null => Ok(0),
            value => value.as_u64().ok_or_else(|| bad("a size or count is no number")),
        };
        // The subject decides what an object is called.
        take("name");
        Ok(ObjectMeta {
            name: name.to_owned(),
            bucket: text(take("bucket")),
            nuid: text(take("nuid")),
            size: number(take("size"))?,
            mtime: text(take("mtime")),
            chunks: number(take("chunks"))?,
            digest: text(take("digest")),
            deleted: take("deleted").as_bool().unwrap_or(false),
            headers: match take("headers") {
                Value::Object(headers) => headers,
                _ => Map::new(),
            },
            options: take("options"),
            revision,
            extra: fields,
        })
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut fields = json!({
            "name": self.name,
            "bucket": self.bucket,
            "nuid": self.nuid,
            "size": self.size,
            "mtime": self.mtime,
            "chunks": self.chunks,
            "digest": self.digest,
            "deleted": self.deleted,
            "headers": self.headers,
            "options": self.options,
        });
        if let Some(fields) = fields.as_object_mut() {
            let extra = self.extra.iter().map(|(name, value)| (name.clone(), value.clone()));
            fields.extend(extra);
        }
        fields.to_string().into_bytes()
    }

    pub(crate) fn into_deleted(self) -> ObjectMeta {
        let (mtime, digest) = (String::new(), String::new());
        ObjectMeta { deleted: true, size: 0, chunks: 0, mtime, digest, ..self }
    }

    /// The SHA-256 of its bytes; `None` when it is deleted, or has none that can be read.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        let kind = self.digest.get(..DIGEST_TYPE.len())?;
        if !kind.eq_ignore_ascii_case(DIGEST_TYPE) {
            return None;
        }
        URL_SAFE_LENIENT.decode(&self.digest[DIGEST_TYPE.len()..]).ok()?.try_into().ok()
    }

    pub fn header(&self, wanted: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.and_then(|(_, value)| value.as_str())
    }

    pub fn sha256_hex(&self) -> Option<String> {
        self.sha256().map(|hash| hex(&hash))
    }

    pub(crate) fn is_link(&self) -> bool {
        self.options.get("link").is_some_and(|link| !link.is_null())
    }
}

pub(crate) fn digest(hash: &[u8]) -> String {
    format!("{DIGEST_TYPE}{}", URL_SAFE.encode(hash))
}

pub(crate) fn encoded(name: &str) -> String {
    URL_SAFE.encode(name)
}

pub(crate) fn decoded(token: &str) -> Option<String> {
    String::from_utf8(URL_SAFE.decode(token).ok()?).ok()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `nats-py` writes it.
    const PYTHON: &str = r#"{"name": "a.whl", "bucket": "b", "nuid": "DQKZ", "size": 5, "mtime": "2026-11-21T12:32:49.524215+00:00", "chunks": 1, "digest": "SHA-256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=", "deleted": false, "headers": {"sha256": "2cf2"}, "options": {"max_chunk_size": 131072}, "new": 1}"#;

    #[test]
    fn a_meta_of_the_python_client_is_read_and_written_back() {
        let meta = ObjectMeta::read("a.whl", 7, PYTHON.as_bytes()).unwrap();
        assert_eq!((meta.size, meta.chunks, meta.revision), (5, 1, 7));
        assert_eq!(
            meta.sha256_hex().unwrap(),
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
        assert_eq!(digest(&meta.sha256().unwrap()), meta.digest);
        assert_eq!(meta.extra["new"], 1);
        let compact = PYTHON.replace(": ", ":").replace(", ", ",");
        assert_eq!(String::from_utf8(meta.to_json()).unwrap(), compact);
    }

    #[test]
    fn what_is_missing_or_null_is_empty() {
        let nulls = br#"{"nuid": null, "size": null, "headers": null, "deleted": null}"#;
        for data in [&b"{}"[..], nulls] {
            let meta = ObjectMeta::read("a", 1, data).unwrap();
            assert_eq!((meta.size, meta.nuid.as_str(), meta.deleted), (0, "", false));
            assert_eq!((meta.sha256(), meta.is_link()), (None, false));
        }
        for bad in [&b"[]"[..], b"", br#"{"size": "5"}"#, br#"{"size": -1}"#] {
            assert!(ObjectMeta::read("a", 1, bad).is_err());
        }
    }

    #[test]
    fn a_digest_may_lack_its_padding_but_nothing_else() {
        let mut meta = ObjectMeta::read("a", 1, PYTHON.as_bytes()).unwrap();
        let hash = meta.sha256();
        meta.digest = meta.digest.trim_end_matches('=').replace("SHA", "sha");
        assert_eq!(meta.sha256(), hash);
        for bad in ["", "SHA-256=", "SHA-512=LPJN", "SHA-256=LPJNul", "é", "LPJNul-wow4m6Dsqx"] {
            meta.digest = bad.into();
            assert_eq!(meta.sha256(), None, "{bad}");
        }
    }

    #[test]
    fn names_survive_their_subject() {
        for name in ["a.whl", "ä ü/ö", "x>*"] {
            assert_eq!(decoded(&encoded(name)).as_deref(), Some(name));
        }
        assert_eq!(decoded("!"), None);
    }
}
