//! The keys under which records are stored. Numbers are big-endian: byte order is number order.

use crate::group::GroupId;

/// What goes out first: a first message before the update of one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    First,
    Update,
}

/// Where a pending delivery stands in its receiver's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Due {
    pub(crate) class: Class,
    pub(crate) at_ms: u64,
}

pub(super) const NEXT_GROUP: &[u8] = b"next_group";

pub(super) fn position(partition: u32) -> Vec<u8> {
    [b"position/".as_slice(), &partition.to_be_bytes()].concat()
}

pub(super) fn group(id: GroupId) -> [u8; 8] {
    id.0.to_be_bytes()
}

pub(super) fn recorded_at(recorded_ms: u64, alert: events::AlertId) -> Vec<u8> {
    [recorded_ms.to_be_bytes().as_slice(), alert.as_uuid().as_bytes()].concat()
}

pub(super) fn delivery(id: GroupId, receiver: &str) -> Vec<u8> {
    [id.0.to_be_bytes().as_slice(), receiver.as_bytes()].concat()
}

pub(super) fn delivery_receiver(key: &[u8]) -> Option<(GroupId, &str)> {
    let (id, receiver) = key.split_first_chunk::<8>()?;
    Some((GroupId(u64::from_be_bytes(*id)), std::str::from_utf8(receiver).ok()?))
}

/// All of a receiver's queue. Names hold no zero byte, so no name is another's prefix.
pub(super) fn queue(receiver: &str) -> Vec<u8> {
    [receiver.as_bytes(), b"\0"].concat()
}

pub(super) fn queue_class(receiver: &str, class: Class) -> Vec<u8> {
    let mut key = queue(receiver);
    key.push(match class {
        Class::First => 0,
        Class::Update => 1,
    });
    key
}

pub(super) fn queued(receiver: &str, due: Due, id: GroupId) -> Vec<u8> {
    let mut key = queue_class(receiver, due.class);
    key.extend_from_slice(&due.at_ms.to_be_bytes());
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// Time and group of a key that [`queued`] made.
pub(super) fn read_queued(key: &[u8]) -> Option<(u64, GroupId)> {
    let (rest, id) = key.split_last_chunk::<8>()?;
    let (_, at_ms) = rest.split_last_chunk::<8>()?;
    Some((u64::from_be_bytes(*at_ms), GroupId(u64::from_be_bytes(*id))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_in_order_of_class_then_time_then_group() {
        let key = |class, at_ms, id| queued("telegram", Due { class, at_ms }, GroupId(id));
        let in_order = [
            key(Class::First, 5, 9),
            key(Class::First, 300, 1),
            key(Class::First, 300, 2),
            key(Class::Update, 4, 1),
        ];
        assert!(in_order.is_sorted());
        assert_eq!(read_queued(&in_order[1]), Some((300, GroupId(1))));
    }

    #[test]
    fn a_receivers_queue_does_not_hold_one_whose_name_it_begins() {
        let other = queued("desk-2", Due { class: Class::First, at_ms: 0 }, GroupId(1));
        assert!(!other.starts_with(&queue("desk")));
    }

    #[test]
    fn a_delivery_key_gives_back_its_parts() {
        assert_eq!(delivery_receiver(&delivery(GroupId(7), "desk")), Some((GroupId(7), "desk")));
    }
}
