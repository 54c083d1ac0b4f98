//! Which entries are in force.

use datafusion::arrow::array::{AsArray as _, BooleanArray, RecordBatch, StringArray};
use datafusion::arrow::buffer::BooleanBuffer;
use events::{InvalidListValue, ListAction, ListChange, ListDeclaration, ListId, ListScope, ListValue};
use hashbrown::HashMap;

use super::coverage::{self, Coverage};
use super::declare::DeclaredList;
use super::entries::{EVERYONE, Entries};
use crate::error::ScoreError;
use crate::transactions::{LIVEMODE, MERCHANT_ID};

/// Why a change to a list has no effect under this ruleset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListChangeError {
    /// The ruleset has no such list.
    #[error(
        "list {0}: the ruleset declares none of this name; add it to a file of lists, or let the change be"
    )]
    UnknownList(ListId),
    /// The list holds values of another kind.
    #[error(
        "list {list}: its values are of kind {kind}, {source}; use a list of another name for another kind"
    )]
    Value {
        /// The list.
        list: ListId,
        /// What its values are.
        kind: events::ListKind,
        /// What they look like.
        source: InvalidListValue,
    },
}

/// The lists of a ruleset with their entries.
#[derive(Debug)]
pub(crate) struct Lists {
    lists: Vec<List>,
    scopes: Scopes,
}

#[derive(Debug)]
struct List {
    declaration: ListDeclaration,
    entries: Entries,
    coverage: Coverage,
}

impl Lists {
    /// The lists with what their files put on them.
    pub(crate) fn new(declared: &[DeclaredList]) -> Self {
        let lists = declared.iter().map(|list| {
            let mut held = List {
                declaration: list.declaration.clone(),
                entries: Entries::new(),
                coverage: Coverage::new(),
            };
            for entry in &list.entries {
                let value = ListValue::parse(list.declaration.kind, &entry.value);
                let value = value.expect("a declared entry was checked, in the form it is written in");
                held.put(EVERYONE, &value, entry.expires_at_us, i64::MIN);
            }
            held
        });
        Self { lists: lists.collect(), scopes: Scopes::default() }
    }

    /// Takes a change in. `now_us` is the window time of the last transaction.
    pub(crate) fn change(&mut self, change: &ListChange, now_us: i64) -> Result<(), ListChangeError> {
        let list = self.lists.iter_mut().find(|list| list.declaration.id == change.list);
        let list = list.ok_or_else(|| ListChangeError::UnknownList(change.list.clone()))?;
        let kind = list.declaration.kind;
        let value = ListValue::parse(kind, &change.value).map_err(|source| ListChangeError::Value {
            list: change.list.clone(),
            kind,
            source,
        })?;
        // Window time does not go back: what has expired by now will never be in force.
        let ends = change.action == ListAction::Remove || change.expires_at_us.is_some_and(|us| us <= now_us);
        if ends {
            if let Some(scope) = self.scopes.get(&change.scope) {
                list.remove(scope, &value);
            }
        } else {
            let scope = self.scopes.get_or_add(&change.scope);
            list.put(scope, &value, change.expires_at_us, now_us);
        }
        Ok(())
    }

    /// Whether a list holds nothing.
    pub(crate) fn is_empty(&self, list: usize) -> bool {
        self.lists[list].entries.len() == 0
    }

    /// The scope of each row of a batch.
    pub(crate) fn scopes(&self, batch: &RecordBatch) -> Result<Vec<u32>, ScoreError> {
        self.scopes.of_rows(batch)
    }

    /// Row by row, whether the value is on the list then; what has no value, or none of the list's kind, is not.
    pub(crate) fn contain(
        &self,
        list: usize,
        values: &StringArray,
        scopes: &[u32],
        times_us: &[i64],
    ) -> BooleanArray {
        let list = &self.lists[list];
        let rows = values.iter().zip(scopes).zip(times_us);
        let found: BooleanBuffer = rows
            .map(|((value, &scope), &now_us)| value.is_some_and(|text| list.contains(scope, text, now_us)))
            .collect();
        BooleanArray::new(found, None)
    }

    /// How many entries each list holds, expired ones included until their memory is needed.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&ListId, usize)> {
        self.lists.iter().map(|list| (&list.declaration.id, list.entries.len()))
    }

    /// Bytes of memory for all entries.
    pub(crate) fn bytes(&self) -> usize {
        self.lists.iter().map(|list| list.entries.bytes()).sum()
    }
}

impl List {
    fn put(&mut self, scope: u32, value: &ListValue<'_>, expires_at_us: Option<i64>, now_us: i64) {
        let kind = self.declaration.kind;
        let mut key = Vec::new();
        coverage::key(value, &mut key);
        let coverage = &mut self.coverage;
        let mut dropped = |key: &[u8]| coverage.count(kind, key, false);
        if self.entries.put(scope, &key, expires_at_us, now_us, &mut dropped) {
            self.coverage.count(kind, &key, true);
        }
    }

    fn remove(&mut self, scope: u32, value: &ListValue<'_>) {
        let mut key = Vec::new();
        coverage::key(value, &mut key);
        if self.entries.remove(scope, &key) {
            self.coverage.count(self.declaration.kind, &key, false);
        }
    }

    fn contains(&self, scope: u32, text: &str, now_us: i64) -> bool {
        let Ok(value) = ListValue::parse(self.declaration.kind, text) else { return false };
        self.coverage.any(&value, |key| {
            self.entries.contains(EVERYONE, key, now_us)
                || scope != EVERYONE && self.entries.contains(scope, key, now_us)
        })
    }
}

/// Numbers for the merchants that have entries of their own, by mode.
#[derive(Debug, Default)]
struct Scopes {
    test: HashMap<String, u32>,
    live: HashMap<String, u32>,
}

impl Scopes {
    const fn of_mode(&self, livemode: bool) -> &HashMap<String, u32> {
        if livemode { &self.live } else { &self.test }
    }

    fn get(&self, scope: &ListScope) -> Option<u32> {
        match scope {
            ListScope::All => Some(EVERYONE),
            ListScope::Merchant { merchant_id, livemode } => {
                self.of_mode(*livemode).get(merchant_id.as_str()).copied()
            }
        }
    }

    fn get_or_add(&mut self, scope: &ListScope) -> u32 {
        let next = self.test.len() + self.live.len() + 1;
        match scope {
            ListScope::All => EVERYONE,
            ListScope::Merchant { merchant_id, livemode } => {
                let numbers = if *livemode { &mut self.live } else { &mut self.test };
                let next = u32::try_from(next).expect("fewer than 2^32 merchants fit in memory");
                *numbers.entry_ref(merchant_id.as_str()).or_insert(next)
            }
        }
    }

    fn of_rows(&self, batch: &RecordBatch) -> Result<Vec<u32>, ScoreError> {
        if self.test.is_empty() && self.live.is_empty() {
            return Ok(vec![EVERYONE; batch.num_rows()]);
        }
        let column = |name| {
            batch.column_by_name(name).ok_or_else(|| ScoreError::Batch(format!("column {name} is missing")))
        };
        let merchants = column(MERCHANT_ID)?.as_string::<i32>();
        let livemodes = column(LIVEMODE)?.as_boolean();
        let numbers = merchants.iter().zip(livemodes).map(|(merchant, livemode)| {
            let known = self.of_mode(livemode.unwrap_or_default()).get(merchant.unwrap_or_default());
            known.copied().unwrap_or(EVERYONE)
        });
        Ok(numbers.collect())
    }
}
