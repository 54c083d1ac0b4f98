//! Token buckets that all replicas draw from; while Redis is away, each replica's own.

use std::time::Instant;

use super::{Operation, Redis};
use crate::limits::{Exceeded, Limiter, Quota};

/// What a request asks of one bucket.
#[derive(Clone, Copy)]
pub(crate) struct Take<'a> {
    pub(crate) limiter: &'a Limiter,
    pub(crate) caller: u128,
    pub(crate) cost: u32,
}

/// Asks one bucket after the other, up to the first that has too few tokens: what each said.
pub(crate) async fn take(redis: Option<&Redis>, takes: &[Take<'_>]) -> Vec<Result<Quota, Exceeded>> {
    if let Some(redis) = redis
        && let Some(answers) = redis.take(takes).await
    {
        return answers;
    }
    let now = Instant::now();
    let mut answers = Vec::with_capacity(takes.len());
    for take in takes {
        let answer = take.limiter.take(take.caller, take.cost, now);
        answers.push(answer);
        if answer.is_err() {
            break;
        }
    }
    answers
}

impl Redis {
    async fn take(&self, takes: &[Take<'_>]) -> Option<Vec<Result<Quota, Exceeded>>> {
        if !self.client.is_up() {
            return None;
        }
        let keys: Vec<String> = takes
            .iter()
            .map(|take| {
                let prefix = &self.client.config.key_prefix;
                format!("{prefix}limit:{}:{:032x}", take.limiter.policy(), take.caller)
            })
            .collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut command = self.client.scripts.take.command(&keys);
        for take in takes {
            let (rate, burst) = take.limiter.rate_and_burst();
            command.arg(rate).arg(burst).arg(take.limiter.capped(take.cost));
        }
        let parts: Vec<String> = self.client.ask(Operation::Limits, &command).await?;
        parts
            .chunks_exact(2)
            .zip(takes)
            .map(|(part, take)| {
                let tokens: f64 = part[1].parse().ok()?;
                Some(take.limiter.verdict(part[0] == "1", tokens, take.cost))
            })
            .collect()
    }
}
