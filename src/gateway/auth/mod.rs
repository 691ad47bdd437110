//! API keys: who asks, and what they may do.
//!
//! The order of the checks bounds their cost: the form of the key, its record in a mirror of the bucket
//! (unknown, revoked and expired keys end here), the [cache](verdict_cache) of verdicts, the
//! [limit](rate_limiter) on wrong keys, and only then a [hash] behind a [semaphore](keyed_semaphore). A
//! verdict holds for one version of the record. This floor knows HTTP requests by their headers alone, and no
//! route.

mod caller;
pub mod hash;
mod keyed_semaphore;
pub(super) mod origin;
mod rate_limiter;
mod verdict_cache;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::view::keys::{KeyMirror, KnownKey};
pub use caller::{Caller, Holder};
use hash::Pepper;
use keyed_semaphore::KeyedSemaphore;
use rate_limiter::RateLimiter;
use verdict_cache::VerdictCache;

use crate::http::Request;
use crate::model::clock;
use crate::model::key::{PresentedKey, Role};

/// Keys that wait to be hashed: half of the handlers that a machine of two cores has, and less than a
/// second of work.
const HASH_QUEUE: usize = 8;
/// How long one of them waits.
const HASH_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct AuthSettings {
    pub pepper: Pepper,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthRefusal {
    Missing,
    /// It is malformed, unknown, wrong, revoked or expired; which of them is nobody's business.
    Invalid,
    /// Too many wrong keys came before it.
    TooManyTries {
        retry_after: Duration,
    },
    Busy,
    /// The records of keys are not known well enough to decide.
    Unknown,
}

impl AuthRefusal {
    const WORDS: [&'static str; 5] = ["missing", "invalid", "limited", "busy", "unavailable"];

    fn place(self) -> usize {
        match self {
            AuthRefusal::Missing => 0,
            AuthRefusal::Invalid => 1,
            AuthRefusal::TooManyTries { .. } => 2,
            AuthRefusal::Busy => 3,
            AuthRefusal::Unknown => 4,
        }
    }
}

pub struct Auth {
    /// `None` when anybody may do everything.
    checks: Option<Checks>,
}

struct Checks {
    header: String,
    keys: Keys,
    mirror: KeyMirror,
}

struct Keys {
    pepper: Pepper,
    verdicts: VerdictCache,
    limiter: RateLimiter,
    hashing: KeyedSemaphore,
    hashes: AtomicU64,
    accepted: AtomicU64,
    refused: [AtomicU64; AuthRefusal::WORDS.len()],
}

impl Auth {
    /// Checks keys that come in `header`, or with no settings lets everybody in.
    pub fn new(
        settings: Option<AuthSettings>,
        header: &str,
        mirror: KeyMirror,
    ) -> Result<Auth, hash::CannotMake> {
        let Some(AuthSettings { pepper }) = settings else {
            return Ok(Auth { checks: None });
        };
        let keys = Keys::new(pepper)?;
        Ok(Auth { checks: Some(Checks { header: header.to_owned(), keys, mirror }) })
    }

    pub fn authenticate(&self, request: &Request) -> Result<Caller, AuthRefusal> {
        let Some(checks) = &self.checks else { return Ok(Caller::Anybody) };
        let found = match presented(request, &checks.header) {
            Ok("") => Err(AuthRefusal::Missing),
            Ok(text) => checks.holder(text, request.peer()),
            Err(refusal) => Err(refusal),
        };
        checks.keys.count(&found);
        found.map(|holder| Caller::Holder(Arc::new(holder)))
    }

    pub fn stranger(&self) -> Caller {
        if self.checks.is_some() { Caller::Nobody } else { Caller::Anybody }
    }

    /// Whether what was found out of a caller still holds: for streams, which outlast the check.
    pub fn confirm(&self, caller: &Caller) -> Result<(), AuthRefusal> {
        let (Some(checks), Caller::Holder(holder)) = (&self.checks, caller) else { return Ok(()) };
        let known = checks.in_force(&holder.key_id)?;
        if known.version == holder.version { Ok(()) } else { Err(AuthRefusal::Invalid) }
    }

    /// Whether the records of keys are known at present; `None` when nobody is asked for one.
    pub fn is_live(&self) -> Option<bool> {
        self.checks.as_ref().map(|checks| checks.mirror.is_live())
    }

    /// Waits until the records of keys are known, if anybody is asked for one.
    pub fn wait_live(&self, timeout: Duration) -> bool {
        self.checks.as_ref().is_none_or(|checks| checks.mirror.wait_live(timeout))
    }

    /// How many keys were accepted and refused, by a word, and how many hashes that took.
    pub fn figures(&self) -> Option<(Vec<(&'static str, u64)>, u64)> {
        let keys = &self.checks.as_ref()?.keys;
        let refused = keys.refused.iter().map(|count| count.load(Ordering::Relaxed));
        let mut outcomes = vec![("accepted", keys.accepted.load(Ordering::Relaxed))];
        outcomes.extend(AuthRefusal::WORDS.into_iter().zip(refused));
        Some((outcomes, keys.hashes.load(Ordering::Relaxed)))
    }
}

/// The key in `header`, else in `Authorization: Bearer KEY`; empty without one. A header that comes twice is
/// [`AuthRefusal::Invalid`]: a proxy and we might each believe another one.
fn presented<'r>(request: &'r Request, header: &str) -> Result<&'r str, AuthRefusal> {
    for name in [header, "Authorization"] {
        let mut values = request.values(name);
        let (first, second) = (values.next(), values.next());
        if second.is_some() {
            return Err(AuthRefusal::Invalid);
        }
        let Some(value) = first else { continue };
        let text = std::str::from_utf8(value).map_err(|_| AuthRefusal::Invalid)?;
        let is_bearer = |scheme: &str| scheme.eq_ignore_ascii_case("Bearer");
        match text.split_once(' ').filter(|(scheme, _)| is_bearer(scheme)) {
            Some((_, token)) => return Ok(token.trim()),
            None if name == header && !text.is_empty() => return Ok(text),
            // Another scheme is between the client and a proxy.
            None => {}
        }
    }
    Ok("")
}

impl Checks {
    fn holder(&self, text: &str, peer: &str) -> Result<Holder, AuthRefusal> {
        let key = PresentedKey::parse(text).ok_or(AuthRefusal::Invalid)?;
        let known = self.in_force(key.key_id)?;
        let role = known.record.role().ok_or(AuthRefusal::Invalid)?;
        if !self.keys.is_right(&key, &known, peer)? {
            return Err(AuthRefusal::Invalid);
        }
        self.mirror.used(&known.record);
        Ok(known.holder(role))
    }

    /// The record of a key that is neither unknown nor revoked nor expired.
    fn in_force(&self, key_id: &str) -> Result<KnownKey, AuthRefusal> {
        let known = self.mirror.get(key_id).ok_or(AuthRefusal::Unknown)?;
        known.filter(|known| known.record.is_in_force(clock::now())).ok_or(AuthRefusal::Invalid)
    }
}

impl KnownKey {
    fn holder(&self, role: Role) -> Holder {
        Holder {
            key_id: self.record.key_id.clone(),
            tenant_id: self.record.tenant_id.clone(),
            role,
            version: self.version,
        }
    }
}

impl Keys {
    fn new(pepper: Pepper) -> Result<Keys, hash::CannotMake> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Keys {
            pepper,
            verdicts: VerdictCache::new()?,
            limiter: RateLimiter::default(),
            hashing: KeyedSemaphore::new(cores, HASH_QUEUE),
            hashes: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: Default::default(),
        })
    }

    /// Whether the secret is that of the record, by what is remembered or by a hash.
    fn is_right(&self, key: &PresentedKey<'_>, known: &KnownKey, peer: &str) -> Result<bool, AuthRefusal> {
        let digest = self.verdicts.digest(key.text);
        if let Some(is_right) = self.verdicts.recall(&digest, known.version) {
            return Ok(is_right);
        }
        let limited = |e: rate_limiter::TooMany| AuthRefusal::TooManyTries { retry_after: e.retry_after };
        self.limiter.take(key.key_id, peer, Instant::now()).map_err(limited)?;
        let give_back = || self.limiter.give_back(key.key_id, peer, Instant::now());
        let permit = self.hashing.enter(key.key_id, HASH_PATIENCE).map_err(|keyed_semaphore::Busy| {
            give_back();
            AuthRefusal::Busy
        })?;
        // Whoever was before us may have brought the same key.
        if let Some(is_right) = self.verdicts.recall(&digest, known.version) {
            give_back();
            return Ok(is_right);
        }
        self.hashes.fetch_add(1, Ordering::Relaxed);
        let is_right = hash::verify(&known.record, key.secret, &self.pepper);
        self.verdicts.learn(digest, known.version, is_right);
        drop(permit);
        if is_right {
            give_back();
        }
        Ok(is_right)
    }

    fn count<T>(&self, found: &Result<T, AuthRefusal>) {
        let counter = match found {
            Ok(_) => &self.accepted,
            Err(refusal) => &self.refused[refusal.place()],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::key::KeyRecord;
    use hash::NewKey;

    fn keys() -> Keys {
        Keys::new(Pepper::default()).unwrap()
    }

    fn made() -> (KnownKey, String) {
        let new = NewKey { tenant_id: "t".into(), role: Role::Admin, expires_at: None, note: None };
        let (record, text) = hash::make(new, &Pepper::default()).unwrap();
        (KnownKey { record: Arc::new(record), version: 1 }, text)
    }

    #[test]
    fn a_key_is_hashed_once_per_version_whoever_brings_it() {
        let (keys, (known, text)) = (keys(), made());
        let key = PresentedKey::parse(&text).unwrap();
        std::thread::scope(|scope| {
            let check = || keys.is_right(&key, &known, "p");
            let checks: Vec<_> = (0..8).map(|_| scope.spawn(check)).collect();
            for check in checks {
                assert_eq!(check.join().unwrap(), Ok(true));
            }
        });
        assert_eq!(keys.hashes.load(Ordering::Relaxed), 1);
        let newer = KnownKey { version: 2, ..known.clone() };
        assert_eq!(keys.is_right(&key, &newer, "p"), Ok(true));
        assert_eq!(keys.hashes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_known_key_costs_microseconds() {
        let (keys, (known, text)) = (keys(), made());
        let key = PresentedKey::parse(&text).unwrap();
        keys.is_right(&key, &known, "p").unwrap();
        let hundred = || {
            let began = Instant::now();
            assert!((0..100).all(|_| keys.is_right(&key, &known, "p") == Ok(true)));
            began.elapsed() / 100
        };
        // Also without optimisation; the best of some, since the machine may be busy.
        let each = (0..20).map(|_| hundred()).min().unwrap();
        assert!(each < Duration::from_micros(50), "{each:?}");
    }

    #[test]
    fn a_wrong_secret_is_hashed_once_and_many_are_limited() {
        let (keys, (known, text)) = (keys(), made());
        let record: KeyRecord = (*known.record).clone();
        let wrong = |n: usize| format!("pyoco_{}.{n:0>43}", record.key_id);
        let first = wrong(0);
        for _ in 0..100 {
            let key = PresentedKey::parse(&first).unwrap();
            assert_eq!(keys.is_right(&key, &known, "p"), Ok(false));
        }
        assert_eq!(keys.hashes.load(Ordering::Relaxed), 1);
        let answers: Vec<_> =
            (1..100).map(|n| keys.is_right(&PresentedKey::parse(&wrong(n)).unwrap(), &known, "p")).collect();
        let limited = answers.iter().filter(|a| matches!(a, Err(AuthRefusal::TooManyTries { .. }))).count();
        let hashes = keys.hashes.load(Ordering::Relaxed);
        assert!(hashes < 40 && limited > 60, "{hashes} hashes, {limited} limited");
        // Its owner elsewhere gets in all the same.
        let key = PresentedKey::parse(&text).unwrap();
        assert_eq!(keys.is_right(&key, &known, "q"), Ok(true));
    }
}
