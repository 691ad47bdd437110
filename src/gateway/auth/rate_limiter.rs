//! How often wrong secrets may be tried: a bucket of tokens per key and per address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Wrong secrets of one key that are looked at one after the other, from wherever they come.
const TRIES_PER_KEY: u32 = 40;
/// Until it is one more again.
const TRY_REFILL_KEY: Duration = Duration::from_secs(1);
/// The same from one address; more than are looked at or wait at a time, so that many good keys behind
/// one address do not stand in each other's way.
const TRIES_PER_PEER: u32 = 20;
/// Until it is one more again.
const TRY_REFILL_PEER: Duration = Duration::from_secs(2);
/// Keys and addresses for which tries are counted.
const MAX_TRY_BUCKETS: usize = 10_000;

/// The buckets. Each hash takes a token out of two of them; one that proves right puts them back.
pub struct RateLimiter {
    state: Mutex<Levels>,
}

struct Levels {
    keys: Buckets<String>,
    peers: Buckets<String>,
}

/// So many wrong secrets have been tried that no more are looked at for the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after: Duration,
}

impl Default for RateLimiter {
    fn default() -> Self {
        let state = Levels {
            keys: Buckets::new(TRIES_PER_KEY, TRY_REFILL_KEY),
            peers: Buckets::new(TRIES_PER_PEER, TRY_REFILL_PEER),
        };
        RateLimiter { state: Mutex::new(state) }
    }
}

impl RateLimiter {
    /// Takes a token for a secret of `key_id` from `peer`.
    pub fn take(&self, key_id: &str, peer: &str, now: Instant) -> Result<(), TooMany> {
        let mut state = self.state.lock();
        let Levels { keys, peers } = &mut *state;
        let (key, peer) = (key_id.to_owned(), network(peer));
        let wait = keys.wait(&key, now).max(peers.wait(&peer, now));
        if !wait.is_zero() {
            return Err(TooMany { retry_after: wait });
        }
        keys.add(key, -1.0, now);
        peers.add(peer, -1.0, now);
        Ok(())
    }

    /// It was right, or was not looked at after all.
    pub fn give_back(&self, key_id: &str, peer: &str, now: Instant) {
        let mut state = self.state.lock();
        state.keys.add(key_id.to_owned(), 1.0, now);
        state.peers.add(network(peer), 1.0, now);
    }
}

/// Who has one address of IPv6 has a whole /64 of them.
fn network(peer: &str) -> String {
    match peer.parse() {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        _ => peer.to_owned(),
    }
}

struct Buckets<K> {
    size: f64,
    refill: Duration,
    /// Tokens, and when they were counted. One that is not here is full.
    levels: HashMap<K, (f64, Instant)>,
}

impl<K: Hash + Eq> Buckets<K> {
    fn new(size: u32, refill: Duration) -> Self {
        Buckets { size: f64::from(size), refill, levels: HashMap::new() }
    }

    fn level(&self, key: &K, now: Instant) -> f64 {
        self.levels.get(key).map_or(self.size, |(level, at)| {
            let gained = now.saturating_duration_since(*at).as_secs_f64() / self.refill.as_secs_f64();
            (level + gained).min(self.size)
        })
    }

    /// Until there is a token.
    fn wait(&self, key: &K, now: Instant) -> Duration {
        self.refill.mul_f64((1.0 - self.level(key, now)).clamp(0.0, 1.0))
    }

    fn add(&mut self, key: K, tokens: f64, now: Instant) {
        if self.levels.len() >= MAX_TRY_BUCKETS && !self.levels.contains_key(&key) {
            let (size, refill) = (self.size, self.refill.as_secs_f64());
            self.levels.retain(|_, (level, at)| {
                *level + now.saturating_duration_since(*at).as_secs_f64() / refill < size
            });
            // All of them are in use: as many addresses have tried wrong secrets in this minute. The
            // gate bounds what they cost, so forgetting is the lesser harm.
            if self.levels.len() >= MAX_TRY_BUCKETS {
                self.levels.clear();
            }
        }
        let level = (self.level(&key, now) + tokens).min(self.size);
        self.levels.insert(key, (level, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_secrets_run_out_and_come_back_with_time() {
        let (limiter, now) = (RateLimiter::default(), Instant::now());
        for _ in 0..TRIES_PER_PEER {
            assert_eq!(limiter.take("k1", "10.0.0.1", now), Ok(()));
        }
        let retry_after = limiter.take("k2", "10.0.0.1", now).unwrap_err().retry_after;
        assert!(retry_after <= TRY_REFILL_PEER && !retry_after.is_zero(), "{retry_after:?}");
        assert_eq!(limiter.take("k2", "10.0.0.2", now), Ok(()), "another address");
        let later = now + retry_after;
        assert_eq!(limiter.take("k2", "10.0.0.1", later), Ok(()));
        assert!(limiter.take("k2", "10.0.0.1", later).is_err());
        limiter.give_back("k2", "10.0.0.1", later);
        assert_eq!(limiter.take("k2", "10.0.0.1", later), Ok(()));
    }

    #[test]
    fn many_addresses_share_the_tries_of_one_key() {
        let (limiter, now) = (RateLimiter::default(), Instant::now());
        let from = |number: u32| format!("10.0.1.{number}");
        for number in 0..TRIES_PER_KEY {
            assert_eq!(limiter.take("k", &from(number), now), Ok(()));
        }
        assert!(limiter.take("k", &from(250), now).is_err());
        assert_eq!(limiter.take("l", &from(250), now), Ok(()));
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::"), network("2001:db8:1:3::"));
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let (limiter, now) = (RateLimiter::default(), Instant::now());
        for number in 0..MAX_TRY_BUCKETS + 5 {
            let _ = limiter.take(&number.to_string(), &number.to_string(), now);
        }
        assert!(limiter.state.lock().keys.levels.len() <= MAX_TRY_BUCKETS);
        assert!(limiter.state.lock().peers.levels.len() <= MAX_TRY_BUCKETS);
    }
}
