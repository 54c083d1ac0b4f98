//! How often a caller may call: token buckets per API key and per address, in bounded memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;

use crate::problem::{Kind, Problem};

/// Buckets per generation; at most twice as many are kept. A caller whose bucket was dropped starts
/// with a full one, so an evasion costs this many addresses.
const GENERATION_MAX: usize = 32_768;

/// Token buckets of one kind of caller.
#[derive(Debug)]
pub(crate) struct Limiter {
    policy: &'static str,
    rate_per_second: f64,
    burst: f64,
    policy_header: HeaderValue,
    buckets: Mutex<Generations>,
}

/// Young buckets, and those not used since the young ones filled up.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u128, Bucket>,
    old: HashMap<u128, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// What a caller has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    policy: &'static str,
    pub(crate) remaining: u64,
    reset_s: u64,
}

impl Quota {
    /// The value of the `RateLimit` header.
    pub(crate) fn header(self) -> HeaderValue {
        let text = format!("\"{}\";r={};t={}", self.policy, self.remaining, self.reset_s);
        HeaderValue::try_from(text).expect("digits and a name without specials")
    }
}

/// No tokens left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) quota: Quota,
    retry_after_s: u64,
}

impl Exceeded {
    pub(crate) fn problem(self) -> Problem {
        let detail = match self.quota.policy {
            "key" => "This API key has used up its rate limit. Wait for `Retry-After` seconds.",
            _ => "This address has used up its rate limit. Wait for `Retry-After` seconds.",
        };
        Problem::new(Kind::RateLimited, detail).retry_after_s(self.retry_after_s)
    }
}

impl Limiter {
    pub(crate) fn new(policy: &'static str, rate_per_second: u32, burst: u32) -> Self {
        let window_s = u64::from(burst).div_ceil(u64::from(rate_per_second)).max(1);
        let policy_header = HeaderValue::try_from(format!("\"{policy}\";q={burst};w={window_s}"))
            .expect("digits and a name without specials");
        Self {
            policy,
            rate_per_second: f64::from(rate_per_second),
            burst: f64::from(burst),
            policy_header,
            buckets: Mutex::default(),
        }
    }

    /// The value of the `RateLimit-Policy` header.
    pub(crate) fn policy_header(&self) -> HeaderValue {
        self.policy_header.clone()
    }

    /// Its name, in headers and where buckets are shared.
    pub(crate) fn policy(&self) -> &'static str {
        self.policy
    }

    /// Tokens a second, and the size of a bucket.
    pub(crate) fn rate_and_burst(&self) -> (f64, f64) {
        (self.rate_per_second, self.burst)
    }

    /// A cost above the bucket's size takes all of it.
    pub(crate) fn capped(&self, cost: u32) -> f64 {
        f64::from(cost).min(self.burst)
    }

    /// What to tell a caller whose bucket holds `tokens`, after it gave them or because it did not.
    pub(crate) fn verdict(&self, gave: bool, tokens: f64, cost: u32) -> Result<Quota, Exceeded> {
        if gave {
            return Ok(self.quota(tokens));
        }
        let retry_after_s = whole_seconds((self.capped(cost) - tokens) / self.rate_per_second);
        Err(Exceeded { quota: self.quota(tokens), retry_after_s })
    }

    /// Takes `cost` tokens from a caller's bucket.
    pub(crate) fn take(&self, caller: u128, cost: u32, now: Instant) -> Result<Quota, Exceeded> {
        let capped = self.capped(cost);
        let (gave, tokens) = {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let bucket = buckets.bucket(caller, Bucket { tokens: self.burst, at: now });
            let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.rate_per_second;
            bucket.tokens = (bucket.tokens + gained).min(self.burst);
            bucket.at = now.max(bucket.at);
            let gave = bucket.tokens >= capped;
            if gave {
                bucket.tokens -= capped;
            }
            (gave, bucket.tokens)
        };
        self.verdict(gave, tokens, cost)
    }

    fn quota(&self, tokens: f64) -> Quota {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and the burst
        let remaining = tokens.floor() as u64;
        let reset_s = whole_seconds((self.burst - tokens) / self.rate_per_second);
        Quota { policy: self.policy, remaining, reset_s }
    }
}

fn whole_seconds(seconds: f64) -> u64 {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl Generations {
    fn bucket(&mut self, caller: u128, full: Bucket) -> &mut Bucket {
        if !self.young.contains_key(&caller) {
            if self.young.len() >= GENERATION_MAX {
                self.old = std::mem::take(&mut self.young);
            }
            let bucket = self.old.remove(&caller).unwrap_or(full);
            self.young.insert(caller, bucket);
        }
        self.young.get_mut(&caller).expect("inserted above")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_its_burst_then_its_rate() {
        let limiter = Limiter::new("key", 10, 20);
        let start = Instant::now();
        for left in (0..20).rev() {
            assert_eq!(limiter.take(1, 1, start).unwrap().remaining, left);
        }
        let refused = limiter.take(1, 1, start).unwrap_err();
        assert_eq!((refused.retry_after_s, refused.quota.reset_s), (1, 2));
        assert!(limiter.take(2, 1, start).is_ok(), "another caller has its own bucket");
        assert!(limiter.take(1, 1, start + Duration::from_millis(100)).is_ok());
        assert!(limiter.take(1, 1, start + Duration::from_millis(150)).is_err());
        assert_eq!(limiter.take(1, 1, start + Duration::from_secs(60)).unwrap().remaining, 19);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let limiter = Limiter::new("ip", 1_000, 1);
        let start = Instant::now() + Duration::from_secs(10);
        limiter.take(1, 1, start).unwrap();
        assert!(limiter.take(1, 1, start - Duration::from_secs(5)).is_err());
        assert!(limiter.take(1, 1, start).is_err());
    }

    #[test]
    fn memory_stays_bounded_and_a_busy_caller_is_not_forgotten() {
        let limiter = Limiter::new("ip", 1, 10);
        let now = Instant::now();
        for _ in 0..10 {
            limiter.take(0, 1, now).unwrap();
        }
        for caller in 1..200_000 {
            limiter.take(caller, 1, now).unwrap();
            assert!(limiter.take(0, 1, now).is_err(), "forgotten after {caller} others");
        }
        let buckets = limiter.buckets.lock().unwrap();
        assert!(buckets.young.len() + buckets.old.len() <= 2 * GENERATION_MAX);
    }

    #[test]
    fn the_headers_say_policy_and_rest() {
        let limiter = Limiter::new("key", 100, 250);
        assert_eq!(limiter.policy_header(), "\"key\";q=250;w=3");
        assert_eq!(limiter.take(1, 50, Instant::now()).unwrap().header(), "\"key\";r=200;t=1");
        assert_eq!(limiter.take(1, 1_000, Instant::now()).unwrap_err().quota.policy, "key");
        assert!(limiter.take(2, 1_000, Instant::now()).is_ok(), "a cost above the burst takes a full bucket");
    }
}
