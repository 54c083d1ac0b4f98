//! What Alertmanager says, recorded: it says everything at least once, in any order.

use fjall::PersistMode;

use super::{Result, Store, get, keys, put};
use crate::incident::{Incident, Notification};
use crate::story::Story;

/// What is said, with the names of those to be told, sorted.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) said: Notification,
    pub(crate) receivers: Vec<String>,
}

impl Store {
    /// Records durably what is news, and queues it. Returns how much of it was.
    pub(crate) fn record_incidents(&self, told: Vec<Told>, now_ms: u64) -> Result<usize> {
        let mut tx = self.db.write_tx().durability(Some(PersistMode::SyncAll));
        let mut news = 0;
        for Told { said, receivers } in told {
            let known = self.incident(&tx, &said.fingerprint)?;
            let incident = match known {
                Some(known) if is_known(&known, &said) => continue,
                Some(mut open) if open.ended_us.is_none() => {
                    open.end(said, now_ms);
                    open
                }
                _ => {
                    let id = self.next_group(&mut tx)?;
                    put(&mut tx, &self.incidents, said.fingerprint.as_bytes(), &id);
                    Incident::open(id, said, receivers, now_ms)
                }
            };
            news += 1;
            let story = Story::Incident(Box::new(incident));
            put(&mut tx, &self.groups, keys::group(story.id()), &story);
            for receiver in story.receivers() {
                self.enqueue(&mut tx, &story, receiver, false, now_ms)?;
            }
        }
        tx.commit()?;
        Ok(news)
    }

    /// The newest incident of a fingerprint, while it is kept.
    fn incident(&self, tx: &impl fjall::Readable, fingerprint: &str) -> Result<Option<Incident>> {
        let Some(id) = get(tx, &self.incidents, fingerprint, "incident's number")? else { return Ok(None) };
        match get(tx, &self.groups, keys::group(id), "group")? {
            Some(Story::Incident(incident)) => Ok(Some(*incident)),
            _ => Ok(None),
        }
    }
}

/// Whether what is said was said before, or is older than what is known.
fn is_known(known: &Incident, said: &Notification) -> bool {
    let later = said.started_us > known.started_us;
    match (known.ended_us, said.ended_us) {
        // Still going on. What is over that began before it was told as over already.
        (None, None) => true,
        (None, Some(_)) => said.started_us < known.started_us,
        (Some(_), _) => !later,
    }
}

#[cfg(test)]
mod tests {
    use events::Severity;

    use super::*;
    use crate::store::{Class, Grouping};

    fn open() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let grouping = Grouping { window_ms: 60_000, burst_groups: 3, update_interval_ms: 1 };
        let store = Store::open(dir.path(), grouping).unwrap();
        (dir, store)
    }

    fn said(started_us: i64, ended_us: Option<i64>) -> Vec<Told> {
        let said = Notification {
            fingerprint: "f1".into(),
            name: "DiskFull".into(),
            severity: Severity::Critical,
            summary: String::new(),
            labels: [("job".to_owned(), "gateway".to_owned())].into(),
            link: None,
            started_us,
            ended_us,
        };
        vec![Told { said, receivers: vec!["desk".to_owned()] }]
    }

    #[test]
    fn an_incident_is_told_when_it_begins_and_when_it_ends_and_repetitions_change_nothing() {
        let (dir, store) = open();
        assert_eq!(store.record_incidents([said(5, None), said(5, None)].concat(), 10).unwrap(), 1);
        let first = store.next_pending("desk", 10).unwrap().unwrap();
        store.delivered(first.group, "desk", 1, Some(70), 11, PersistMode::Buffer).unwrap();
        assert_eq!(store.record_incidents(said(5, None), 12).unwrap(), 0);
        assert_eq!(store.next_pending("desk", u64::MAX).unwrap(), None);
        drop(store);
        let grouping = Grouping { window_ms: 1, burst_groups: 1, update_interval_ms: 1 };
        let store = Store::open(dir.path(), grouping).unwrap();
        assert_eq!(store.record_incidents(said(5, Some(20)), 21).unwrap(), 1);
        assert_eq!(store.record_incidents(said(5, Some(20)), 22).unwrap(), 0);
        let (story, delivery) = store.load(first.group, "desk").unwrap().unwrap();
        assert_eq!((story.count(), delivery.editable()), (2, Some(70)), "the same message");
        assert_eq!(delivery.due.unwrap().class, Class::Update);
        assert_eq!(store.record_incidents(said(5, None), 23).unwrap(), 0, "late");
        assert_eq!(store.record_incidents(said(30, None), 31).unwrap(), 1, "it is wrong again");
        assert_eq!(store.record_incidents(said(5, Some(20)), 32).unwrap(), 0, "late");
        assert_eq!(store.pending_count("desk").unwrap(), 2);
    }

    #[test]
    fn an_incident_that_is_no_longer_kept_is_news_again() {
        let (_dir, store) = open();
        store.record_incidents(said(5, None), 10).unwrap();
        let first = store.next_pending("desk", 10).unwrap().unwrap();
        store.delivered(first.group, "desk", 1, None, 11, PersistMode::Buffer).unwrap();
        store.prune(1_000, &["desk".to_owned()].into()).unwrap();
        assert!(store.load(first.group, "desk").unwrap().is_none());
        assert_eq!(store.record_incidents(said(5, None), 2_000).unwrap(), 1);
    }
}
