//! Makes keys, and checks a secret against what is kept of its key.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Map;
use subtle::ConstantTimeEq;

use crate::model::clock;
use crate::model::key::{self, ARGON2ID, KeyRecord, PBKDF2, Role};

/// argon2id: 19 MiB, two passes, one lane; 17 ms of one core.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// What a record may ask for at most, so that a strange one costs a bounded time and memory.
const MAX_MEMORY_KIB: u32 = 64 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_ROUNDS: u32 = 2_000_000;

const KEY_ID_BYTES: usize = 12;
const SECRET_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// Of PBKDF2 records (`docs/spec.md#api-key-record`).
const HASH_BYTES: usize = 32;

/// Mixed into every hash; not in NATS, the same on all gateways. `Debug` hides it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pepper(String);

impl Pepper {
    pub fn new(text: Option<String>) -> Pepper {
        Pepper(text.unwrap_or_default())
    }
}

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pepper(***)")
    }
}

#[derive(Debug, Clone)]
pub struct NewKey {
    pub tenant_id: String,
    pub role: Role,
    /// From when on it is good for nothing, unix seconds.
    pub expires_at: Option<f64>,
    pub note: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot make a key: {0}")]
pub struct CannotMake(String);

/// Makes a key: the record to keep, and the text that its owner gets once.
pub fn make(new: NewKey, pepper: &Pepper) -> Result<(KeyRecord, String), CannotMake> {
    let key_id: String = random::<KEY_ID_BYTES>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = URL_SAFE_NO_PAD.encode(random::<SECRET_BYTES>()?);
    let salt = random::<SALT_BYTES>()?;
    let failed = |e: &dyn std::fmt::Display| CannotMake(e.to_string());
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|e| failed(&e))?;
    let argon2 = argon2(params, pepper).map_err(|e| failed(&e))?;
    let hash = argon2.hash_password_with_salt(secret.as_bytes(), &salt).map_err(|e| failed(&e))?;
    let text = key::written(&key_id, &secret);
    let record = KeyRecord {
        key_id,
        tenant_id: new.tenant_id,
        kdf: ARGON2ID.to_owned(),
        iterations: PASSES,
        salt_b64: String::new(),
        hash_b64: String::new(),
        phc: Some(hash.to_string()),
        created_at: Some(clock::now()),
        revoked_at: None,
        role: Some(new.role.as_str().to_owned()),
        expires_at: new.expires_at,
        note: new.note,
        last_used_at: None,
        extra: Map::new(),
    };
    Ok((record, text))
}

/// Whether `secret` is the one of this record. A record that cannot be read opens nothing.
pub fn verify(record: &KeyRecord, secret: &str, pepper: &Pepper) -> bool {
    match record.kdf.as_str() {
        ARGON2ID => verify_argon2id(record, secret, pepper).unwrap_or(false),
        PBKDF2 => verify_pbkdf2(record, secret, pepper).unwrap_or(false),
        _ => false,
    }
}

fn verify_argon2id(record: &KeyRecord, secret: &str, pepper: &Pepper) -> Option<bool> {
    let hash = PasswordHash::new(record.phc.as_deref()?).ok()?;
    let params = Params::try_from(&hash).ok()?;
    let is_bounded = hash.algorithm.as_str() == ARGON2ID
        && params.m_cost() <= MAX_MEMORY_KIB
        && params.t_cost() <= MAX_PASSES
        && hash.hash.is_some();
    if !is_bounded {
        return None;
    }
    let argon2 = argon2(params, pepper).ok()?;
    Some(argon2.verify_password(secret.as_bytes(), &hash).is_ok())
}

fn verify_pbkdf2(record: &KeyRecord, secret: &str, pepper: &Pepper) -> Option<bool> {
    if record.iterations > MAX_ROUNDS {
        return None;
    }
    let params = pbkdf2::Params::new(record.iterations).ok()?;
    let salt = URL_SAFE_NO_PAD.decode(&record.salt_b64).ok()?;
    let expected = URL_SAFE_NO_PAD.decode(&record.hash_b64).ok()?;
    // The Python side appends its pepper to the secret.
    let secret = [secret.as_bytes(), pepper.0.as_bytes()].concat();
    let mut hash = [0; HASH_BYTES];
    let algorithm = pbkdf2::Algorithm::Pbkdf2Sha256;
    pbkdf2::pbkdf2_hmac_with_params(&secret, &salt, algorithm, params, &mut hash);
    Some(bool::from(hash.as_slice().ct_eq(&expected)))
}

fn argon2(params: Params, pepper: &Pepper) -> Result<Argon2<'_>, argon2::Error> {
    let (algorithm, version) = (Algorithm::Argon2id, Version::V0x13);
    Argon2::new_with_secret(pepper.0.as_bytes(), algorithm, version, params)
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], CannotMake> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| CannotMake(format!("no random bytes from the system: {e}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::key::PresentedKey;

    fn pepper(text: &str) -> Pepper {
        Pepper::new(Some(text.to_owned()))
    }

    fn new_key() -> NewKey {
        NewKey { tenant_id: "t".into(), role: Role::Viewer, expires_at: None, note: None }
    }

    #[test]
    fn a_new_key_has_the_contracts_form_and_opens_its_own_record_alone() {
        let (record, text) = make(new_key(), &pepper("p")).unwrap();
        let key = PresentedKey::parse(&text).unwrap();
        assert_eq!((key.key_id.len(), key.secret.len()), (24, 43));
        assert_eq!(key.key_id, record.key_id);
        assert!(record.phc.as_deref().unwrap().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(!serde_json::to_string(&record).unwrap().contains(key.secret));
        assert!(verify(&record, key.secret, &pepper("p")));
        assert!(!verify(&record, key.secret, &pepper("q")), "another pepper");
        assert!(!verify(&record, key.secret, &Pepper::default()), "no pepper");
        assert!(!verify(&record, &key.secret[1..], &pepper("p")));
        let (other, _) = make(new_key(), &pepper("p")).unwrap();
        assert!(!verify(&other, key.secret, &pepper("p")), "another record");
        let (bare, text) = make(new_key(), &Pepper::default()).unwrap();
        let key = PresentedKey::parse(&text).unwrap();
        assert!(verify(&bare, key.secret, &Pepper::new(None)));
    }

    /// Made by the Python package 0.5.1 with the pepper `pep`.
    const OF_PYTHON: &str = r#"{"key_id":"499132bc5568eaede51291d8","tenant_id":"demo",
        "kdf":"pbkdf2_hmac_sha256","iterations":200000,"salt_b64":"UTWpsF9FDY3B4J7dQnR3_g",
        "hash_b64":"JXbq44TaiJPX3oO_8sBUuCxfQ-RFQYJhxcunPom1LK0","created_at":1795255992.419744,
        "revoked_at":null}"#;

    #[test]
    fn a_record_of_the_python_side_is_read() {
        let record: KeyRecord = serde_json::from_str(OF_PYTHON).unwrap();
        let secret = "FdLr1JwL1IEPwSwUyt7zsrvqz2nrD9mcDTPxqmJsGyQ";
        assert!(verify(&record, secret, &pepper("pep")));
        assert!(!verify(&record, secret, &pepper("pe")));
        assert!(!verify(&record, "FdLr1JwL1IEPwSwUyt7zsrvqz2nrD9mcDTPxqmJsGyR", &pepper("pep")));
    }

    #[test]
    fn a_record_that_cannot_be_read_opens_nothing() {
        let good: KeyRecord = serde_json::from_str(OF_PYTHON).unwrap();
        let (ours, text) = make(new_key(), &Pepper::default()).unwrap();
        let secret = PresentedKey::parse(&text).unwrap().secret;
        let phc = ours.phc.clone().unwrap();
        let with = |phc: String| KeyRecord { phc: Some(phc), ..ours.clone() };
        let (head, _) = phc.rsplit_once('$').unwrap();
        for bad in [
            KeyRecord { kdf: "plain".into(), ..good.clone() },
            KeyRecord { kdf: String::new(), ..good.clone() },
            KeyRecord { iterations: u32::MAX, ..good.clone() },
            KeyRecord { iterations: 0, ..good.clone() },
            KeyRecord { hash_b64: String::new(), ..good.clone() },
            KeyRecord { salt_b64: "!".into(), ..good.clone() },
            KeyRecord { phc: None, ..ours.clone() },
            with(String::new()),
            with(head.to_owned()),
            with(format!("{head}$")),
            with(phc.replace("m=19456", "m=4194304")),
            with(phc.replace("argon2id", "argon2i")),
        ] {
            let pepper = Pepper::default();
            assert!(!verify(&bad, secret, &pepper) && !verify(&bad, "", &pepper));
        }
        assert!(verify(&ours, secret, &Pepper::default()));
    }
}
