//! When a receiver may be called next. Pure: the caller brings the time.
//!
//! teloxide's `Throttle` is not used. It counts new messages but not edits, which are most of what is sent
//! here; it has one queue in which an edit may stand before a new alert; and after a 429 it sleeps for
//! whatever `retry_after` says, however long.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// Keeps calls apart, limits them per minute and obeys a pause.
#[derive(Debug)]
pub(crate) struct Pace {
    min_interval: Duration,
    per_minute: usize,
    /// The calls of the last minute, oldest first: at most `per_minute` of them.
    recent: VecDeque<Instant>,
    paused_until: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(min_interval: Duration, per_minute: u32) -> Self {
        let per_minute = usize::try_from(per_minute).unwrap_or(usize::MAX).max(1);
        Self { min_interval, per_minute, recent: VecDeque::new(), paused_until: None }
    }

    /// For receivers without a limit of their own.
    pub(crate) fn unlimited() -> Self {
        Self::new(Duration::ZERO, u32::MAX)
    }

    /// How long to wait before the next call.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let after_last = self.recent.back().map(|&last| last + self.min_interval);
        let after_minute = self
            .recent
            .len()
            .checked_sub(self.per_minute)
            .and_then(|i| self.recent.get(i))
            .map(|&at| at + MINUTE);
        [after_last, after_minute, self.paused_until]
            .into_iter()
            .flatten()
            .max()
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Notes a call.
    pub(crate) fn called(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|&at| now.saturating_duration_since(at) >= MINUTE) {
            self.recent.pop_front();
        }
        if self.min_interval == Duration::ZERO && self.per_minute >= u32::MAX as usize {
            return;
        }
        self.recent.push_back(now);
        if self.recent.len() > self.per_minute {
            self.recent.pop_front();
        }
    }

    /// Makes no call for a while.
    pub(crate) fn pause(&mut self, now: Instant, pause: Duration) {
        self.paused_until = Some(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_keep_their_distance() {
        let start = Instant::now();
        let mut pace = Pace::new(SECOND, 20);
        assert_eq!(pace.wait(start), Duration::ZERO);
        pace.called(start);
        assert_eq!(pace.wait(start), SECOND);
        assert_eq!(pace.wait(start + SECOND), Duration::ZERO);
    }

    #[test]
    fn no_minute_holds_more_calls_than_allowed() {
        let start = Instant::now();
        let mut pace = Pace::new(SECOND, 20);
        let (mut now, mut calls) = (start, Vec::new());
        for _ in 0..100 {
            now += pace.wait(now);
            pace.called(now);
            calls.push(now);
        }
        assert!(calls.windows(21).all(|w| w[20] - w[0] >= MINUTE), "20 a minute");
        assert_eq!(calls[19] - calls[0], 19 * SECOND, "and not slower than that");
    }

    #[test]
    fn a_pause_is_obeyed() {
        let start = Instant::now();
        let mut pace = Pace::unlimited();
        pace.called(start);
        assert_eq!(pace.wait(start), Duration::ZERO);
        pace.pause(start, 7 * SECOND);
        assert_eq!(pace.wait(start + SECOND), 6 * SECOND);
        assert_eq!(pace.wait(start + 8 * SECOND), Duration::ZERO);
    }
}
