//! Writers and membership where there is one process: it has all the work, and its writers replace each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::Appender;
use crate::{Change, LogError, Membership, NewRecord, Position, Writer};

/// The writers there are, by name.
#[derive(Default)]
pub(super) struct Writers(Mutex<HashMap<String, Arc<Place>>>);

/// What the writers of one name share.
struct Place {
    /// One append at a time, and none while a writer is replaced.
    turn: Semaphore,
    /// Which of them it is now.
    newest: Mutex<u64>,
}

impl Writers {
    /// Waits for the append of the writer before, and replaces it.
    pub(super) async fn replace(&self, name: &str, log: Appender) -> Result<AloneWriter, LogError> {
        let place = {
            let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Place { turn: Semaphore::new(1), newest: Mutex::new(0) });
            Arc::clone(places.entry(name.to_owned()).or_insert_with(new))
        };
        let turn = place.turn.acquire().await.map_err(|_| LogError::Closed)?;
        let number = {
            let mut newest = place.newest.lock().unwrap_or_else(PoisonError::into_inner);
            *newest += 1;
            *newest
        };
        drop(turn);
        Ok(AloneWriter { name: name.to_owned(), number, place, log })
    }
}

/// A writer of the embedded log.
pub(super) struct AloneWriter {
    name: String,
    number: u64,
    place: Arc<Place>,
    log: Appender,
}

#[async_trait]
impl Writer for AloneWriter {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        let (name, number) = (self.name.clone(), self.number);
        let (place, log) = (Arc::clone(&self.place), self.log.clone());
        // In a task of its own: the turn ends when the records are durable, also when the caller goes away.
        let append = tokio::spawn(async move {
            let _turn = place.turn.acquire().await.map_err(|_| LogError::Closed)?;
            if *place.newest.lock().unwrap_or_else(PoisonError::into_inner) != number {
                return Err(LogError::Fenced(name));
            }
            log.append(records).await
        });
        append.await.map_err(|e| LogError::Storage(format!("the appending task failed: {e}")))?
    }
}

/// The membership of the only process.
#[derive(Debug)]
pub(super) struct Alone {
    parts: Option<Vec<u32>>,
}

impl Alone {
    pub(super) fn new(parts: u32) -> Self {
        Self { parts: Some((0..parts).collect()) }
    }
}

#[async_trait]
impl Membership for Alone {
    async fn changed(&mut self) -> Result<Change, LogError> {
        match self.parts.take() {
            Some(parts) => Ok(Change::Gained(parts)),
            None => std::future::pending().await,
        }
    }

    async fn leave(self: Box<Self>) {}
}
