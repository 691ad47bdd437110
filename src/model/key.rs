//! API keys: how one is written, what is kept of it, and what its role may do.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::{MAX_API_KEY_BYTES, MAX_TENANT_BYTES};

/// In front of every key, so that scanners for leaked secrets can find one.
const PREFIX: &str = "pyoco_";
/// Lengths of a key id, in bytes (`docs/contract.md#api-keys`).
const KEY_ID_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=256;
const RECORD_PREFIX: &str = "api_keys.";

/// `kdf` of records that this version makes.
pub const ARGON2ID: &str = "argon2id";
/// `kdf` of records that the Python side makes.
pub const PBKDF2: &str = "pbkdf2_hmac_sha256";

/// A key as it was presented, taken apart. It shows itself nowhere: there is no `Debug`.
#[derive(Clone, Copy)]
pub struct PresentedKey<'a> {
    pub text: &'a str,
    /// Which record it claims to belong to; no secret.
    pub key_id: &'a str,
    pub secret: &'a str,
}

impl<'a> PresentedKey<'a> {
    /// Reads `pyoco_<key_id>.<secret>`; `None` for anything else.
    pub fn parse(text: &'a str) -> Option<PresentedKey<'a>> {
        if text.len() > MAX_API_KEY_BYTES {
            return None;
        }
        let (key_id, secret) = text.strip_prefix(PREFIX)?.split_once('.')?;
        let is_good = is_key_id(key_id) && has_form(secret, &SECRET_BYTES);
        is_good.then_some(PresentedKey { text, key_id, secret })
    }
}

pub fn written(key_id: &str, secret: &str) -> String {
    format!("{PREFIX}{key_id}.{secret}")
}

pub fn is_key_id(text: &str) -> bool {
    has_form(text, &KEY_ID_BYTES)
}

pub fn is_tenant(text: &str) -> bool {
    has_form(text, &(1..=MAX_TENANT_BYTES))
}

pub fn record_key(key_id: &str) -> String {
    format!("{RECORD_PREFIX}{key_id}")
}

/// The key id of a bucket's key; `None` when that holds something else.
pub fn key_id_of(record_key: &str) -> Option<&str> {
    record_key.strip_prefix(RECORD_PREFIX).filter(|key_id| is_key_id(key_id))
}

fn has_form(text: &str, lengths: &std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Never the key itself: `docs/spec.md#api-key-record`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub key_id: String,
    pub tenant_id: String,
    /// [`ARGON2ID`] or [`PBKDF2`].
    pub kdf: String,
    /// Rounds of PBKDF2; passes of argon2id, for information.
    #[serde(default)]
    pub iterations: u32,
    /// Salt of PBKDF2, base64url without padding.
    #[serde(default)]
    pub salt_b64: String,
    #[serde(default)]
    pub hash_b64: String,
    /// The PHC string of argon2id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phc: Option<String>,
    pub created_at: Option<f64>,
    /// Since when it is good for nothing, unix seconds.
    pub revoked_at: Option<f64>,
    /// The word of its role; a record without one is an operator's. Ours, as all below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// From when on it is good for nothing, unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When a gateway last noted its use, unix seconds; coarse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<f64>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl KeyRecord {
    pub fn is_in_force(&self, now: f64) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// What it may do; `None` for a word that this version does not know, which opens nothing.
    pub fn role(&self) -> Option<Role> {
        self.role.as_deref().map_or(Some(Role::Operator), Role::parse)
    }

    /// Whether `other` says the same but for when it was used.
    pub fn is_same_credential(&self, other: &KeyRecord) -> bool {
        let unused = |record: &KeyRecord| KeyRecord { last_used_at: None, ..record.clone() };
        unused(self) == unused(other)
    }
}

words! {
    /// What the holder of a key is, inside of its tenant.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub enum Role {
        /// Everything, also what later versions keep from operators.
        Admin = "admin",
        /// Runs, workers and figures.
        Operator = "operator",
        Submitter = "submitter",
        /// Looks and changes nothing.
        Viewer = "viewer",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    ReadRuns,
    SubmitRuns,
    CancelRuns,
    /// List workers, which all tenants share.
    ReadWorkers,
    HideWorkers,
    /// Read figures, which cover all tenants.
    ReadMetrics,
    /// List and download wheels, which all tenants share.
    ReadWheels,
    /// Upload wheels: code that workers then execute.
    UploadWheels,
    DeleteWheels,
    /// Read who has uploaded and deleted wheels, and from where: of all tenants.
    ReadWheelHistory,
}

impl Role {
    pub fn parse(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// The one table of who may do what.
    pub fn may(self, permission: Permission) -> bool {
        use Permission::{
            CancelRuns, DeleteWheels, HideWorkers, ReadMetrics, ReadRuns, ReadWheelHistory, ReadWheels,
            ReadWorkers, SubmitRuns, UploadWheels,
        };
        match self {
            Role::Admin | Role::Operator => true,
            Role::Submitter => {
                matches!(permission, ReadRuns | SubmitRuns | CancelRuns | ReadWorkers | ReadWheels)
            }
            Role::Viewer => match permission {
                ReadRuns | ReadWorkers | ReadMetrics | ReadWheels => true,
                SubmitRuns | CancelRuns | HideWorkers | UploadWheels | DeleteWheels | ReadWheelHistory => {
                    false
                }
            },
        }
    }
}

impl Permission {
    pub const ALL: [Permission; 10] = [
        Permission::ReadRuns,
        Permission::SubmitRuns,
        Permission::CancelRuns,
        Permission::ReadWorkers,
        Permission::HideWorkers,
        Permission::ReadMetrics,
        Permission::ReadWheels,
        Permission::UploadWheels,
        Permission::DeleteWheels,
        Permission::ReadWheelHistory,
    ];

    /// What it allows, as the end of "may not …".
    pub fn deed(self) -> &'static str {
        match self {
            Permission::ReadRuns => "read runs",
            Permission::SubmitRuns => "submit runs",
            Permission::CancelRuns => "cancel runs",
            Permission::ReadWorkers => "list workers",
            Permission::HideWorkers => "hide workers",
            Permission::ReadMetrics => "read metrics",
            Permission::ReadWheels => "read wheels",
            Permission::UploadWheels => "upload wheels",
            Permission::DeleteWheels => "delete wheels",
            Permission::ReadWheelHistory => "read the history of wheels",
        }
    }

    /// How the audit calls what is done with it; `None` when nothing is changed.
    pub fn action(self) -> Option<&'static str> {
        match self {
            Permission::SubmitRuns => Some("run.submit"),
            Permission::CancelRuns => Some("run.cancel"),
            Permission::HideWorkers => Some("worker.hide"),
            Permission::UploadWheels => Some("wheel.upload"),
            Permission::DeleteWheels => Some("wheel.delete"),
            Permission::ReadRuns
            | Permission::ReadWorkers
            | Permission::ReadMetrics
            | Permission::ReadWheels
            | Permission::ReadWheelHistory => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contracts_form_is_a_key() {
        let secret = "s".repeat(16);
        let key = PresentedKey::parse("pyoco_01234567.abcdefghijklmnop").unwrap();
        assert_eq!((key.key_id, key.secret), ("01234567", "abcdefghijklmnop"));
        let longest = format!("pyoco_{}.{}", "a".repeat(64), "b".repeat(256));
        assert!(PresentedKey::parse(&longest).is_some());
        for bad in [
            String::new(),
            "pyoco_".into(),
            format!("pyoco_1234567.{secret}"),
            format!("pyoco_{}.{secret}", "a".repeat(65)),
            "pyoco_12345678.short".into(),
            format!("pyoco_12345678.{}", "s".repeat(257)),
            format!("pyoco_12345678.{secret}."),
            format!("pyoco_12345678.{secret} "),
            format!(" pyoco_12345678.{secret}"),
            format!("Pyoco_12345678.{secret}"),
            format!("pyoco_1234é678.{secret}"),
            format!("pyoco_12345678{secret}"),
            format!("pyoco_1234>678.{secret}"),
            "x".repeat(10_000),
        ] {
            assert!(PresentedKey::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn bucket_keys_of_other_things_are_no_records() {
        assert_eq!(key_id_of(&record_key("0123456789ab")), Some("0123456789ab"));
        for other in ["api_keys.", "api_keys.short", "api_keys.0123.456789", "x.0123456789"] {
            assert_eq!(key_id_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_record_of_the_python_side_is_an_operators_and_unknown_fields_survive() {
        let text = r#"{"key_id":"499132bc5568eaede51291d8","tenant_id":"demo",
            "kdf":"pbkdf2_hmac_sha256","iterations":200000,"salt_b64":"UTWpsF9FDY3B4J7dQnR3_g",
            "hash_b64":"JXbq44TaiJPX3oO_8sBUuCxfQ-RFQYJhxcunPom1LK0","created_at":1.5,
            "revoked_at":null,"zzz":[1]}"#;
        let record: KeyRecord = serde_json::from_str(text).unwrap();
        assert_eq!(record.role(), Some(Role::Operator));
        assert!(record.is_in_force(2.0));
        let again = serde_json::to_value(&record).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn time_and_unknown_roles_close_a_record() {
        let read = |more: &str| -> KeyRecord {
            serde_json::from_str(&format!(r#"{{"key_id":"k","tenant_id":"t","kdf":"argon2id"{more}}}"#))
                .unwrap()
        };
        assert!(read(r#","expires_at":10.0"#).is_in_force(9.9));
        assert!(!read(r#","expires_at":10.0"#).is_in_force(10.0));
        assert!(!read(r#","revoked_at":1.0"#).is_in_force(0.0));
        assert_eq!(read(r#","role":"emperor""#).role(), None);
        let used = read(r#","last_used_at":5.0"#);
        assert!(used.is_same_credential(&read("")));
        assert!(!used.is_same_credential(&read(r#","role":"viewer""#)));
    }

    #[test]
    fn each_role_may_less_than_the_one_before() {
        let rights = |role: Role| Permission::ALL.map(|permission| u8::from(role.may(permission)));
        assert_eq!(rights(Role::Admin), [1; 10]);
        assert_eq!(rights(Role::Operator), [1; 10]);
        assert_eq!(rights(Role::Submitter), [1, 1, 1, 1, 0, 0, 1, 0, 0, 0]);
        assert_eq!(rights(Role::Viewer), [1, 0, 0, 1, 0, 1, 1, 0, 0, 0]);
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
    }
}
