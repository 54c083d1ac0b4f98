//! Removes what is too old or too much, segment by segment, in a thread of its own: appends only wait for
//! the small write that forgets a segment, never for the deletion of its files.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use super::config::Retention;
use super::queue::{Queue, Request};
use super::store::Store;
use super::topic::{Segment, Topic};
use super::{now_ms, writer::Poison};

pub(super) struct Remover {
    pub(super) store: Store,
    pub(super) topics: Arc<[Topic]>,
    pub(super) retention: Retention,
    pub(super) queue: Arc<Queue>,
    pub(super) poison: Arc<Poison>,
    /// Per topic, the segment the writer was last asked to end.
    pub(super) rolled: Vec<Option<u64>>,
}

impl Remover {
    /// Looks for what to remove at every interval, until the sender of `stop` is gone.
    pub(super) fn run(mut self, stop: &Receiver<()>) {
        while stop.recv_timeout(self.retention.check_interval()) == Err(RecvTimeoutError::Timeout) {
            if self.poison.get().is_some() {
                continue;
            }
            for topic in 0..self.topics.len() {
                self.check(topic);
            }
        }
    }

    fn check(&mut self, at: usize) {
        let topic = &self.topics[at];
        if events::topics::is_kept_whole(topic.name) {
            return;
        }
        let now_ms = now_ms();
        let segments = topic.segments();
        let doomed = doomed(&self.retention, &segments, now_ms);
        if let Some(active) = segments.last() {
            let expired = active.bytes() > 0 && self.retention.is_expired(active.newest_ms(), now_ms);
            if expired
                && self.rolled[at] != Some(active.number)
                && self.queue.send(Request::Roll { topic: at }).is_ok()
            {
                self.rolled[at] = Some(active.number);
            }
        }
        if doomed == 0 {
            return;
        }
        let doomed = &segments[..doomed];
        if let Err(error) = self.store.remove_segments(topic.name, doomed) {
            tracing::error!(topic = topic.name, %error, "retention could not remove segments; trying again");
            return;
        }
        topic.remove_oldest(doomed.len());
        for segment in doomed {
            if let Err(error) = self.store.delete_files(segment.keyspace.clone()) {
                tracing::error!(topic = topic.name, %error, "removed records still take disk space until the restart");
            }
        }
        tracing::info!(topic = topic.name, segments = doomed.len(), "retention removed records");
    }
}

/// How many of the oldest segments are to go. The last one is never among them.
fn doomed(retention: &Retention, segments: &[Arc<Segment>], now_ms: i64) -> usize {
    let mut kept_bytes: u64 = segments.iter().map(|segment| segment.bytes()).sum();
    let sealed = segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
    sealed
        .iter()
        .take_while(|segment| {
            let goes = kept_bytes > retention.max_bytes || retention.is_expired(segment.newest_ms(), now_ms);
            kept_bytes -= segment.bytes();
            goes
        })
        .count()
}
