//! What keeps the store in order: second chances after a restart, and removing what is old.

use std::collections::BTreeSet;

use fjall::{PersistMode, Readable as _, SingleWriterWriteTx};

use super::{Class, Delivery, Due, Result, Store, get, keys, parse};
use crate::group::{Group, GroupId, IndexKey, Window};
use crate::story::Story;

/// How many groups or alerts one transaction removes: other writers wait for it.
pub(super) const PRUNE_BATCH: usize = 500;
/// Deliveries that were refused for good are tried again after a restart, while they are news.
pub(super) const REQUEUE_MAX_AGE_MS: u64 = 86_400_000;

impl Store {
    /// Puts what was refused within the last day back into the queues: the operator may have corrected
    /// the token or the chat. Returns how many, and the receivers in the store that are not in `active`.
    pub(crate) fn requeue_refused(
        &self,
        active: &BTreeSet<String>,
        now_ms: u64,
    ) -> Result<(u64, BTreeSet<String>)> {
        let mut tx = self.db.write_tx().durability(Some(PersistMode::SyncAll));
        let (mut requeued, mut orphans) = (0, BTreeSet::new());
        let mut refused = Vec::new();
        for entry in self.db.read_tx().iter(&self.deliveries) {
            let (key, value) = entry.into_inner()?;
            let Some((id, receiver)) = keys::delivery_receiver(&key) else { continue };
            let delivery: Delivery = parse(&value, "delivery")?;
            if !active.contains(receiver) {
                if delivery.due.is_some() {
                    orphans.insert(receiver.to_owned());
                }
            } else if delivery.refused.is_some() {
                refused.push((id, receiver.to_owned(), delivery));
            }
        }
        for (id, receiver, mut delivery) in refused {
            let story: Option<Story> = get(&tx, &self.groups, keys::group(id), "group")?;
            if story.is_some_and(|s| s.recorded_ms() + REQUEUE_MAX_AGE_MS >= now_ms) {
                delivery.refused = None;
                delivery.attempts = 0;
                let due = Due { class: Class::First, at_ms: now_ms };
                self.save(&mut tx, id, &receiver, delivery, Some(due));
                requeued += 1;
            }
        }
        tx.commit()?;
        Ok((requeued, orphans))
    }

    /// Removes what was recorded before `cutoff_ms`, except groups that wait for an active receiver.
    /// Returns whether there is more to remove.
    pub(crate) fn prune(&self, cutoff_ms: u64, active: &BTreeSet<String>) -> Result<bool> {
        let mut tx = self.db.write_tx().durability(Some(PersistMode::Buffer));
        let old_alerts: Vec<_> = tx
            .range(&self.recorded_at, ..cutoff_ms.to_be_bytes().to_vec())
            .take(PRUNE_BATCH)
            .map(fjall::Guard::key)
            .collect::<fjall::Result<_>>()?;
        for key in &old_alerts {
            tx.remove(&self.alerts, &key[8..]);
            tx.remove(&self.recorded_at, key.clone());
        }
        let mut removed_groups = 0;
        let snapshot = self.db.read_tx();
        for entry in snapshot.iter(&self.groups) {
            let story: Story = parse(&entry.value()?, "group")?;
            if story.recorded_ms() >= cutoff_ms || removed_groups == PRUNE_BATCH {
                break;
            }
            removed_groups += usize::from(self.remove_story(&mut tx, &story, active)?);
        }
        tx.commit()?;
        Ok(old_alerts.len() == PRUNE_BATCH || removed_groups == PRUNE_BATCH)
    }

    fn remove_story(
        &self,
        tx: &mut SingleWriterWriteTx<'_>,
        story: &Story,
        active: &BTreeSet<String>,
    ) -> Result<bool> {
        let mut deliveries = Vec::new();
        for receiver in story.receivers() {
            let delivery = self.delivery(tx, story.id(), receiver)?;
            if delivery.due.is_some() && active.contains(receiver) {
                return Ok(false);
            }
            deliveries.push((receiver, delivery));
        }
        for (receiver, delivery) in deliveries {
            if let Some(due) = delivery.due {
                tx.remove(&self.queues, keys::queued(receiver, due, story.id()));
            }
            tx.remove(&self.deliveries, keys::delivery(story.id(), receiver));
        }
        match story {
            Story::Fraud(group) => self.forget_windows(tx, group)?,
            Story::Incident(incident) => {
                let newest: Option<GroupId> =
                    get(tx, &self.incidents, &incident.fingerprint, "incident's number")?;
                if newest == Some(incident.id) {
                    tx.remove(&self.incidents, incident.fingerprint.as_bytes());
                }
            }
        }
        tx.remove(&self.groups, keys::group(story.id()));
        Ok(true)
    }

    fn forget_windows(&self, tx: &mut SingleWriterWriteTx<'_>, group: &Group) -> Result<()> {
        let card = IndexKey::of_card(&group.worst, &group.receivers);
        let rule = IndexKey::of_rule(&group.worst, &group.receivers).map(|(_, key)| key);
        for key in [Some(card), rule].into_iter().flatten() {
            let window: Option<Window> = get(tx, &self.index, &key.0, "window")?;
            if window.is_some_and(|window| window.group == Some(group.id)) {
                tx.remove(&self.index, key.0);
            }
        }
        Ok(())
    }
}
