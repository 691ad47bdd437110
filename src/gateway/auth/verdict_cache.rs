//! What has been found out of presented keys, so that no key is hashed twice.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::hash::{self, CannotMake};

/// Keys that a gateway remembers to be right, and as many to be wrong; 100 bytes each.
const MAX_REMEMBERED_KEYS: usize = 10_000;

/// A presented key under a secret of this process: who reads the memory of it learns no key, and
/// nobody can choose where a key lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digested([u8; 32]);

/// Remembers which keys were right and which were wrong, each for one version of its record.
pub struct VerdictCache {
    salt: [u8; 32],
    right: Mutex<Bounded>,
    /// Apart, so that a flood of wrong keys forgets no right one.
    wrong: Mutex<Bounded>,
}

impl VerdictCache {
    pub fn new() -> Result<VerdictCache, CannotMake> {
        let salt = hash::random()?;
        Ok(VerdictCache { salt, right: Mutex::default(), wrong: Mutex::default() })
    }

    pub fn digest(&self, text: &str) -> Digested {
        let hash = Sha256::new().chain_update(self.salt).chain_update(text.as_bytes()).finalize();
        Digested(hash.into())
    }

    /// Whether the key was right or wrong, if that is known for this version of its record.
    pub fn recall(&self, key: &Digested, version: u64) -> Option<bool> {
        let has = |side: &Mutex<Bounded>| side.lock().get(key) == Some(version);
        if has(&self.right) {
            return Some(true);
        }
        has(&self.wrong).then_some(false)
    }

    pub fn learn(&self, key: Digested, version: u64, is_right: bool) {
        let side = if is_right { &self.right } else { &self.wrong };
        side.lock().put(key, version);
    }
}

/// The newest so many; the oldest go first.
#[derive(Default)]
struct Bounded {
    versions: HashMap<Digested, u64>,
    order: VecDeque<Digested>,
}

impl Bounded {
    fn get(&self, key: &Digested) -> Option<u64> {
        self.versions.get(key).copied()
    }

    fn put(&mut self, key: Digested, version: u64) {
        if self.versions.insert(key, version).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MAX_REMEMBERED_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.versions.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_holds_for_one_version_and_is_bounded() {
        let cache = VerdictCache::new().unwrap();
        let (a, b) = (cache.digest("a"), cache.digest("b"));
        assert_eq!(cache.recall(&a, 1), None);
        cache.learn(a, 1, true);
        cache.learn(b, 1, false);
        assert_eq!((cache.recall(&a, 1), cache.recall(&b, 1)), (Some(true), Some(false)));
        assert_eq!((cache.recall(&a, 2), cache.recall(&b, 2)), (None, None));
        for number in 0..MAX_REMEMBERED_KEYS + 10 {
            cache.learn(cache.digest(&format!("wrong {number}")), 1, false);
        }
        let wrong = cache.wrong.lock();
        assert_eq!((wrong.versions.len(), wrong.order.len()), (MAX_REMEMBERED_KEYS, MAX_REMEMBERED_KEYS));
        drop(wrong);
        assert_eq!((cache.recall(&a, 1), cache.recall(&b, 1)), (Some(true), None));
    }

    #[test]
    fn each_process_has_names_of_its_own() {
        let (one, two) = (VerdictCache::new().unwrap(), VerdictCache::new().unwrap());
        assert_ne!(one.digest("a"), two.digest("a"));
        assert_eq!(one.digest("a"), one.digest("a"));
    }
}
