//! Which records' letters have been dealt with.

use std::collections::{HashSet, VecDeque};

use super::letter::Origin;

/// Places that are remembered of one topic: beyond it the oldest are forgotten. Two letters about one record
/// are rarely further apart than a stage's absence.
const REMEMBERED_MAX: usize = 1_000_000;

/// Of one dead-letter topic, the records whose letters were dealt with.
#[derive(Debug, Default)]
pub(super) struct Known {
    origins: HashSet<Origin>,
    order: VecDeque<Origin>,
    /// Per partition, the offset up to which letters are counted in. Empty: nothing has been read yet.
    pub(super) up_to: Vec<u64>,
    /// Letters beyond that which a retry that was cut off has appended already.
    pub(super) appended: HashSet<(u32, u64)>,
}

impl Known {
    /// Nothing yet, of letters that begin at `starts`.
    pub(super) fn from(starts: Vec<u64>) -> Self {
        Self { up_to: starts, ..Self::default() }
    }

    pub(super) fn contains(&self, origin: &Origin) -> bool {
        self.origins.contains(origin)
    }

    pub(super) fn insert(&mut self, origin: Origin) {
        if self.origins.insert(origin) {
            self.order.push_back(origin);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.origins.remove(&oldest);
        }
    }
}
