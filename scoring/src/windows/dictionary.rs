//! Numbers the distinct values of keys, densely, and gives a number back when no event needs it.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher as _;

use crate::binary::{Reader, Writer};
use crate::error::SnapshotError;

/// From the bytes of a value to a small number, and back to nothing when its last event is released.
///
/// The hasher is seeded per process against keys chosen to collide; numbers depend on the order of
/// arrival only, so the seed never shows in a result.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    slots: Vec<Slot>,
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Default)]
struct Slot {
    value: Box<[u8]>,
    /// Events that hold this number.
    events: u32,
}

impl Dictionary {
    /// The number of a value, taken for one more event.
    pub(crate) fn acquire(&mut self, value: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(value);
        let slots = &mut self.slots;
        if let Some(&id) = self.table.find(hash, |&id| &*slots[id as usize].value == value) {
            slots[id as usize].events += 1;
            return id;
        }
        let slot = Slot { value: value.into(), events: 1 };
        let id = if let Some(id) = self.free.pop() {
            slots[id as usize] = slot;
            id
        } else {
            slots.push(slot);
            u32::try_from(slots.len() - 1).expect("fewer than 2^32 live keys fit in memory")
        };
        let hasher = &self.hasher;
        self.table.insert_unique(hash, id, |&id| hasher.hash_one(&*slots[id as usize].value));
        id
    }

    /// Gives back what [`Self::acquire`] took for one event.
    pub(crate) fn release(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        slot.events -= 1;
        if slot.events == 0 {
            let value = std::mem::take(&mut slot.value);
            let hash = self.hasher.hash_one(&*value);
            if let Ok(entry) = self.table.find_entry(hash, |&other| other == id) {
                entry.remove();
            }
            self.free.push(id);
        }
    }

    /// One more than the largest number in use.
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.u32(u32::try_from(self.slots.len()).expect("numbers are 32 bits wide"));
        for slot in &self.slots {
            out.u32(slot.events);
            out.bytes(&slot.value);
        }
        // The order in which numbers are given out again is part of the state.
        out.u32s(&self.free);
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let mut dictionary = Self::default();
        for id in 0..input.u32()? {
            let slot = Slot { events: input.u32()?, value: input.bytes()?.into() };
            let live = slot.events > 0;
            dictionary.slots.push(slot);
            if live {
                let (slots, hasher) = (&dictionary.slots, &dictionary.hasher);
                let hash = hasher.hash_one(&*slots[id as usize].value);
                dictionary.table.insert_unique(hash, id, |&id| hasher.hash_one(&*slots[id as usize].value));
            }
        }
        dictionary.free = input.u32s()?;
        let dead = dictionary.slots.iter().filter(|s| s.events == 0).count();
        let free_fits = dictionary.free.len() == dead
            && dictionary
                .free
                .iter()
                .all(|&id| dictionary.slots.get(id as usize).is_some_and(|s| s.events == 0));
        if free_fits {
            Ok(dictionary)
        } else {
            Err(SnapshotError::Damaged("a dictionary's free list does not fit"))
        }
    }
}
