//! What must survive a crash: alerts, the consumer position, groups, and what each receiver was told.
//!
//! An alert, its group and its place in each receiver's queue are written in one transaction with the
//! position in the log: it is recorded before anything is sent, and read again it changes nothing. The
//! queues are on disk, so an outage of any length takes no memory.

mod incidents;
mod keys;
mod upkeep;

use std::path::Path;

use events::Alert;
use fjall::{
    KeyspaceCreateOptions, PersistMode, Readable as _, SingleWriterTxDatabase, SingleWriterTxKeyspace,
    SingleWriterWriteTx,
};
use runtime::trace::TraceContext;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use self::incidents::Told;
pub(crate) use self::keys::{Class, Due};
use crate::group::{Group, GroupId, IndexKey, Subject, Window};
use crate::story::Story;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The disk or the database failed.
    #[error("the alerter's store failed: {0}")]
    Database(#[from] fjall::Error),
    /// A record is not what this build wrote.
    #[error("the alerter's store holds a {what} that cannot be read: {source}")]
    Corrupt { what: &'static str, source: serde_json::Error },
}

/// The value of a key that says it all.
const NOTHING: &[u8] = b"";

type Result<T> = std::result::Result<T, StoreError>;

/// How alerts are put into groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grouping {
    pub(crate) window_ms: u64,
    pub(crate) burst_groups: u32,
    pub(crate) update_interval_ms: u64,
}

/// An alert with the names of its receivers, sorted.
#[derive(Debug, Clone)]
pub(crate) struct Routed {
    pub(crate) alert: Alert,
    pub(crate) receivers: Vec<String>,
    /// Of sampled ones.
    pub(crate) trace: Option<TraceContext>,
}

/// What a receiver knows of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    /// How many of the group's alerts it has been told of.
    pub(crate) delivered_count: u64,
    /// The message to update.
    pub(crate) message_id: Option<i64>,
    /// Its place in the queue; `None` when there is nothing to tell.
    pub(crate) due: Option<Due>,
    /// Failed attempts since the last success.
    pub(crate) attempts: u32,
    /// When it was last told.
    pub(crate) delivered_ms: u64,
    /// The group's count when it became more severe: telling that takes a new message.
    pub(crate) renew_at: Option<u64>,
    /// Why no more attempts are made until a restart.
    pub(crate) refused: Option<String>,
    /// What went wrong last.
    pub(crate) last_error: Option<String>,
}

impl Delivery {
    /// The message to edit; `None` when a new one is to be sent.
    pub(crate) fn editable(&self) -> Option<i64> {
        self.message_id.filter(|_| self.renew_at.is_none())
    }
}

/// What [`Store::record`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) new: Vec<events::Severity>,
    pub(crate) duplicates: u64,
    pub(crate) groups_opened: u64,
}

/// A pending delivery and when it may be attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) group: GroupId,
    pub(crate) at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct AlertRecord {
    alert: Alert,
    group: Option<GroupId>,
    recorded_ms: u64,
}

/// The store, open. One process at a time has it.
pub(crate) struct Store {
    db: SingleWriterTxDatabase,
    alerts: SingleWriterTxKeyspace,
    recorded_at: SingleWriterTxKeyspace,
    groups: SingleWriterTxKeyspace,
    index: SingleWriterTxKeyspace,
    incidents: SingleWriterTxKeyspace,
    deliveries: SingleWriterTxKeyspace,
    queues: SingleWriterTxKeyspace,
    meta: SingleWriterTxKeyspace,
    grouping: Grouping,
}

impl Store {
    pub(crate) fn open(dir: &Path, grouping: Grouping) -> Result<Self> {
        let db = SingleWriterTxDatabase::builder(dir).open()?;
        let keyspace = |name| db.keyspace(name, KeyspaceCreateOptions::default);
        Ok(Self {
            alerts: keyspace("alerts")?,
            recorded_at: keyspace("recorded_at")?,
            groups: keyspace("groups")?,
            index: keyspace("index")?,
            incidents: keyspace("incidents")?,
            deliveries: keyspace("deliveries")?,
            queues: keyspace("queues")?,
            meta: keyspace("meta")?,
            grouping,
            db,
        })
    }

    /// The offset to read next, if anything was read.
    pub(crate) fn position(&self, partition: u32) -> Result<Option<u64>> {
        get(&self.db.read_tx(), &self.meta, keys::position(partition), "position")
    }

    /// Records alerts read from a partition together with the offset after them, durably.
    pub(crate) fn record(
        &self,
        partition: u32,
        next_offset: u64,
        alerts: &[Routed],
        now_ms: u64,
    ) -> Result<Recorded> {
        let mut tx = self.db.write_tx().durability(Some(PersistMode::SyncAll));
        let mut recorded = Recorded::default();
        for routed in alerts {
            let id = routed.alert.id;
            if tx.contains_key(&self.alerts, id.as_uuid().as_bytes())? {
                recorded.duplicates += 1;
                continue;
            }
            let group = self.group(&mut tx, routed, now_ms, &mut recorded)?;
            let record = AlertRecord { alert: routed.alert.clone(), group, recorded_ms: now_ms };
            put(&mut tx, &self.alerts, *id.as_uuid().as_bytes(), &record);
            tx.insert(&self.recorded_at, keys::recorded_at(now_ms, id), NOTHING);
            recorded.new.push(routed.alert.severity);
        }
        put(&mut tx, &self.meta, keys::position(partition), &next_offset);
        tx.commit()?;
        Ok(recorded)
    }

    /// Puts an alert into its group and the group into its receivers' queues.
    fn group(
        &self,
        tx: &mut SingleWriterWriteTx<'_>,
        routed: &Routed,
        now_ms: u64,
        recorded: &mut Recorded,
    ) -> Result<Option<GroupId>> {
        if routed.receivers.is_empty() {
            return Ok(None);
        }
        let joined = self.open_group_of(tx, routed)?;
        let (mut group, renewed) = if let Some(mut group) = joined {
            let renewed = group.add(&routed.alert, now_ms);
            (group, renewed)
        } else {
            recorded.groups_opened += 1;
            (self.open_group(tx, routed, now_ms)?, false)
        };
        if let Some(trace) = routed.trace {
            group.note_trace(trace);
        }
        let story = Story::Fraud(Box::new(group));
        put(tx, &self.groups, keys::group(story.id()), &story);
        for receiver in story.receivers() {
            self.enqueue(tx, &story, receiver, renewed, now_ms)?;
        }
        Ok(Some(story.id()))
    }

    fn open_group_of(&self, tx: &SingleWriterWriteTx<'_>, routed: &Routed) -> Result<Option<Group>> {
        let card = IndexKey::of_card(&routed.alert, &routed.receivers);
        let mut at = self.window(tx, &card, &routed.alert)?.and_then(|window| window.group);
        if at.is_none()
            && let Some((_, rule)) = IndexKey::of_rule(&routed.alert, &routed.receivers)
        {
            at = self.window(tx, &rule, &routed.alert)?.and_then(|window| window.group);
        }
        let story = at.map_or(Ok(None), |id| get(tx, &self.groups, keys::group(id), "group"))?;
        Ok(story.and_then(|story| match story {
            Story::Fraud(group) => Some(*group),
            Story::Incident(_) => None,
        }))
    }

    /// Opens a group about the card, or about the rule when it has struck too many cards.
    fn open_group(&self, tx: &mut SingleWriterWriteTx<'_>, routed: &Routed, now_ms: u64) -> Result<Group> {
        let (alert, receivers) = (&routed.alert, &routed.receivers);
        let id = self.next_group(tx)?;
        let mut subject = Subject::Card;
        if let Some((rule, key)) = IndexKey::of_rule(alert, receivers) {
            let opened = Window { opened_us: alert.raised_at_us, group: None, card_groups: 0 };
            let mut window = self.window(tx, &key, alert)?.unwrap_or(opened);
            if window.card_groups < self.grouping.burst_groups {
                window.card_groups += 1;
            } else {
                window.group = Some(id);
                subject = Subject::Rule { rule };
            }
            put(tx, &self.index, key.0, &window);
        }
        if subject == Subject::Card {
            let window = Window { opened_us: alert.raised_at_us, group: Some(id), card_groups: 0 };
            put(tx, &self.index, IndexKey::of_card(alert, receivers).0, &window);
        }
        Ok(Group::open(id, subject, receivers.clone(), alert, now_ms))
    }

    fn next_group(&self, tx: &mut SingleWriterWriteTx<'_>) -> Result<GroupId> {
        let id = GroupId(get(tx, &self.meta, keys::NEXT_GROUP, "group number")?.unwrap_or(1));
        put(tx, &self.meta, keys::NEXT_GROUP, &(id.0 + 1));
        Ok(id)
    }

    fn window(&self, tx: &SingleWriterWriteTx<'_>, key: &IndexKey, alert: &Alert) -> Result<Option<Window>> {
        let window: Option<Window> = get(tx, &self.index, &key.0, "window")?;
        Ok(window.filter(|w| w.covers(alert.raised_at_us, self.grouping.window_ms)))
    }

    fn enqueue(
        &self,
        tx: &mut SingleWriterWriteTx<'_>,
        story: &Story,
        receiver: &str,
        renewed: bool,
        now_ms: u64,
    ) -> Result<()> {
        let mut delivery = self.delivery(tx, story.id(), receiver)?;
        if renewed && delivery.delivered_count > 0 {
            delivery.renew_at = Some(story.count());
        }
        let due = if delivery.refused.is_some() {
            None
        } else if delivery.delivered_count == 0 || delivery.renew_at.is_some() {
            // What waits already keeps its time: a storm of alerts neither postpones its message nor
            // cuts short the wait after a failure.
            let waits = delivery.due.filter(|due| due.class == Class::First || delivery.attempts > 0);
            Some(Due { class: Class::First, at_ms: waits.map_or(now_ms, |due| due.at_ms) })
        } else {
            let at_ms = now_ms.max(delivery.delivered_ms + self.grouping.update_interval_ms);
            delivery.due.or(Some(Due { class: Class::Update, at_ms }))
        };
        self.save(tx, story.id(), receiver, delivery, due);
        Ok(())
    }

    fn delivery(&self, tx: &impl fjall::Readable, id: GroupId, receiver: &str) -> Result<Delivery> {
        Ok(get(tx, &self.deliveries, keys::delivery(id, receiver), "delivery")?.unwrap_or_default())
    }

    /// Writes a delivery and moves it to its new place in the queue.
    fn save(
        &self,
        tx: &mut SingleWriterWriteTx<'_>,
        id: GroupId,
        receiver: &str,
        mut delivery: Delivery,
        due: Option<Due>,
    ) {
        if delivery.due != due {
            if let Some(before) = delivery.due {
                tx.remove(&self.queues, keys::queued(receiver, before, id));
            }
            if let Some(now) = due {
                tx.insert(&self.queues, keys::queued(receiver, now, id), NOTHING);
            }
            delivery.due = due;
        }
        put(tx, &self.deliveries, keys::delivery(id, receiver), &delivery);
    }

    /// What to attempt next: a first message that is due, else an update that is due, else what will be
    /// due soonest.
    pub(crate) fn next_pending(&self, receiver: &str, now_ms: u64) -> Result<Option<Pending>> {
        let tx = self.db.read_tx();
        let mut soonest: Option<Pending> = None;
        for class in [Class::First, Class::Update] {
            let Some(head) = tx.prefix(&self.queues, keys::queue_class(receiver, class)).next() else {
                continue;
            };
            let Some((at_ms, group)) = keys::read_queued(&head.key()?) else { continue };
            let pending = Pending { group, at_ms };
            if at_ms <= now_ms {
                return Ok(Some(pending));
            }
            soonest = soonest.filter(|s| s.at_ms <= at_ms).or(Some(pending));
        }
        Ok(soonest)
    }

    /// All that waits for a receiver, first messages first, at most `max`.
    pub(crate) fn all_pending(&self, receiver: &str, max: usize) -> Result<Vec<Pending>> {
        let tx = self.db.read_tx();
        let mut all = Vec::new();
        for head in tx.prefix(&self.queues, keys::queue(receiver)).take(max) {
            if let Some((at_ms, group)) = keys::read_queued(&head.key()?) {
                all.push(Pending { group, at_ms });
            }
        }
        Ok(all)
    }

    /// How many groups wait for a receiver.
    pub(crate) fn pending_count(&self, receiver: &str) -> Result<u64> {
        let mut count = 0;
        for head in self.db.read_tx().prefix(&self.queues, keys::queue(receiver)) {
            head.key()?;
            count += 1;
        }
        Ok(count)
    }

    /// A story and what a receiver knows of it; `None` when it is no longer kept.
    pub(crate) fn load(&self, id: GroupId, receiver: &str) -> Result<Option<(Story, Delivery)>> {
        let tx = self.db.read_tx();
        let story = get(&tx, &self.groups, keys::group(id), "group")?;
        let delivery = self.delivery(&tx, id, receiver)?;
        Ok(story.map(|story| (story, delivery)))
    }

    /// Notes that a receiver has been told of a story as far as `count`.
    pub(crate) fn delivered(
        &self,
        id: GroupId,
        receiver: &str,
        count: u64,
        message_id: Option<i64>,
        now_ms: u64,
        persist: PersistMode,
    ) -> Result<()> {
        let mut tx = self.db.write_tx().durability(Some(persist));
        let mut delivery = self.delivery(&tx, id, receiver)?;
        let story: Option<Story> = get(&tx, &self.groups, keys::group(id), "group")?;
        delivery.renew_at = delivery.renew_at.filter(|&at| at > count);
        delivery.delivered_count = count;
        delivery.delivered_ms = now_ms;
        delivery.attempts = 0;
        delivery.last_error = None;
        delivery.message_id = message_id;
        let due = story.filter(|story| story.count() > count).map(|_| match delivery.renew_at {
            Some(_) => Due { class: Class::First, at_ms: now_ms },
            None => Due { class: Class::Update, at_ms: now_ms + self.grouping.update_interval_ms },
        });
        self.save(&mut tx, id, receiver, delivery, due);
        Ok(tx.commit()?)
    }

    /// Notes a failed attempt and when to try again.
    pub(crate) fn retry(&self, id: GroupId, receiver: &str, at_ms: u64, error: &str) -> Result<()> {
        let mut tx = self.db.write_tx().durability(Some(PersistMode::Buffer));
        let mut delivery = self.delivery(&tx, id, receiver)?;
        delivery.attempts = delivery.attempts.saturating_add(1);
        delivery.last_error = Some(error.to_owned());
        let due = delivery.due.map(|due| Due { at_ms, ..due });
        self.save(&mut tx, id, receiver, delivery, due);
        Ok(tx.commit()?)
    }

    /// Notes that the message to update is gone: a new one is sent.
    pub(crate) fn message_gone(&self, id: GroupId, receiver: &str, now_ms: u64) -> Result<()> {
        let mut tx = self.db.write_tx().durability(Some(PersistMode::Buffer));
        let mut delivery = self.delivery(&tx, id, receiver)?;
        delivery.message_id = None;
        let due = delivery.due.map(|_| Due { class: Class::First, at_ms: now_ms });
        self.save(&mut tx, id, receiver, delivery, due);
        Ok(tx.commit()?)
    }

    /// Notes that the receiver refuses the message for good: kept, and tried again after a restart.
    pub(crate) fn refused(&self, id: GroupId, receiver: &str, error: &str) -> Result<()> {
        let mut tx = self.db.write_tx().durability(Some(PersistMode::SyncAll));
        let mut delivery = self.delivery(&tx, id, receiver)?;
        delivery.refused = Some(error.to_owned());
        delivery.last_error = Some(error.to_owned());
        self.save(&mut tx, id, receiver, delivery, None);
        Ok(tx.commit()?)
    }

    /// Takes a delivery whose group is no longer kept out of the queue.
    pub(crate) fn drop_pending(&self, id: GroupId, receiver: &str) -> Result<()> {
        let mut tx = self.db.write_tx().durability(Some(PersistMode::Buffer));
        let delivery = self.delivery(&tx, id, receiver)?;
        self.save(&mut tx, id, receiver, delivery, None);
        Ok(tx.commit()?)
    }
}

fn get<T: DeserializeOwned>(
    tx: &impl fjall::Readable,
    keyspace: &SingleWriterTxKeyspace,
    key: impl AsRef<[u8]>,
    what: &'static str,
) -> Result<Option<T>> {
    tx.get(keyspace, key)?.map(|bytes| parse(&bytes, what)).transpose()
}

fn parse<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::Corrupt { what, source })
}

fn put(
    tx: &mut SingleWriterWriteTx<'_>,
    keyspace: &SingleWriterTxKeyspace,
    key: impl AsRef<[u8]>,
    value: &impl Serialize,
) {
    let bytes = serde_json::to_vec(value).expect("stored types have string keys and finite numbers only");
    tx.insert(keyspace, key.as_ref(), bytes);
}

#[cfg(test)]
mod tests;
