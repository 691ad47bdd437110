//! Requests about wheels.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use ureq::http::Method;

use super::multipart;
use super::transport::Call;
use super::{Client, Error, segment};
use crate::model::wheel::hex;

/// A wheel to be uploaded under the name of its file.
#[derive(Debug, Clone)]
pub struct WheelUpload {
    /// The wheel on this machine; its file name becomes the name in the registry.
    pub path: PathBuf,
    /// Which workers get it: those that serve one of these tags; all of them when there is none.
    pub tags: Vec<String>,
    /// Whether it may replace a wheel of the same name.
    pub replace: bool,
}

/// Filters of the history; `None` leaves one out.
#[derive(Debug, Clone, Default)]
pub struct WheelHistoryQuery {
    /// Most entries; the server checks its bounds.
    pub limit: Option<i64>,
    /// Only what was done to this wheel.
    pub wheel_name: Option<String>,
    /// Only entries of this action: `upload` or `delete`.
    pub action: Option<String>,
}

impl Client {
    /// The wheels of the registry: a list.
    pub fn wheels(&self) -> Result<Value, Error> {
        self.json(&Call::new(Method::GET, "/wheels"))
    }

    /// What was uploaded and deleted, newest first: a list.
    pub fn wheel_history(&self, query: &WheelHistoryQuery) -> Result<Value, Error> {
        let call = Call::new(Method::GET, "/wheels/history")
            .with_query("limit", query.limit)
            .with_query("wheel_name", query.wheel_name.as_ref())
            .with_query("action", query.action.as_ref());
        self.json(&call)
    }

    /// Uploads a wheel as it is read: its item in the registry. `progress` gets the number of bytes
    /// sent and their total. The time of the call grows with the file.
    ///
    /// # Errors
    /// Those of a call, [`Error::BadFile`], and [`Error::OtherHash`] when the registry has other bytes.
    pub fn upload_wheel(
        &self,
        upload: &WheelUpload,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Value, Error> {
        let name = file_name(&upload.path)?;
        let tags = upload.tags.join(",");
        let mut fields = vec![("replace", if upload.replace { "true" } else { "false" })];
        if !tags.is_empty() {
            fields.push(("tags", &tags));
        }
        let frame = multipart::around_file(&fields, "wheel", name);
        let call = Call::new(Method::POST, "/wheels");
        let uploaded = self.upload(&call, &frame, &upload.path, progress)?;
        match stored_hash(&uploaded.answer) {
            Some(stored) if stored != uploaded.sha256_hex => Err(Error::OtherHash {
                request: call.name(),
                name: name.to_owned(),
                sent: uploaded.sha256_hex,
                stored,
            }),
            _ => Ok(uploaded.answer),
        }
    }

    /// Deletes a wheel: `{"name","deleted"}`.
    pub fn delete_wheel(&self, name: &str) -> Result<Value, Error> {
        self.json(&Call::new(Method::DELETE, format!("/wheels/{}", segment(name))))
    }
}

fn file_name(path: &Path) -> Result<&str, Error> {
    let bad = |reason: &str| Error::BadFile { path: path.to_owned(), reason: reason.to_owned() };
    let name = path.file_name().ok_or_else(|| bad("it is not a file"))?;
    name.to_str().ok_or_else(|| bad("its name is not UTF-8"))
}

/// The hash of which the server tells, in hex; `None` when it tells none.
fn stored_hash(answer: &Value) -> Option<String> {
    if let Some(hash) = answer["sha256_hex"].as_str() {
        return Some(hash.to_ascii_lowercase());
    }
    let digest = answer["digest"].as_str()?.strip_prefix("SHA-256=")?;
    let hash = URL_SAFE_NO_PAD.decode(digest.trim_end_matches('=')).ok()?;
    Some(hex(&hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_is_read_from_either_field() {
        assert_eq!(stored_hash(&json!({"sha256_hex": "AB12"})).as_deref(), Some("ab12"));
        assert_eq!(stored_hash(&json!({"digest": "SHA-256=-_8="})).as_deref(), Some("fbff"));
        for none in [json!({}), json!({"digest": "MD5=aa"}), json!({"digest": "SHA-256=!"})] {
            assert_eq!(stored_hash(&none), None, "{none}");
        }
    }
}
