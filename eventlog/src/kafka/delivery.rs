//! One completion for all records of a call: delivery reports count it down.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::client;
use crate::Position;

/// What became of a call's records: their positions, or the first error.
pub(super) type Delivered = Result<Vec<Position>, KafkaError>;

/// The reports a call waits for.
pub(super) struct Completion(Mutex<State>);

struct State {
    /// How many reports are to come, and one for as long as records are being handed over.
    outstanding: usize,
    positions: Vec<Position>,
    error: Option<KafkaError>,
    reply: Option<oneshot::Sender<Delivered>>,
    /// Room in the queue, given back with the last report.
    _room: Option<[OwnedSemaphorePermit; 2]>,
}

impl Completion {
    pub(super) fn new(
        records: usize,
        room: Option<[OwnedSemaphorePermit; 2]>,
    ) -> (Arc<Self>, oneshot::Receiver<Delivered>) {
        let (reply, answer) = oneshot::channel();
        let state = State {
            outstanding: records + 1,
            positions: vec![Position { partition: 0, offset: 0 }; records],
            error: None,
            reply: Some(reply),
            _room: room,
        };
        (Arc::new(Self(Mutex::new(state))), answer)
    }

    /// All records have been handed over, except for `missing` ones, which `error` kept back.
    pub(super) fn handed_over(&self, missing: usize, error: Option<KafkaError>) {
        self.report(missing + 1, |state| {
            if let Some(error) = error {
                state.error.get_or_insert(error);
            }
        });
    }

    fn report(&self, count: usize, what: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut state);
        state.outstanding -= count;
        if state.outstanding > 0 {
            return;
        }
        state._room = None;
        let delivered = match state.error.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut state.positions)),
        };
        if let Some(reply) = state.reply.take() {
            // Whoever waited may have gone away: the records are written all the same.
            let _ = reply.send(delivered);
        }
    }
}

/// Which record of which call a report is about.
pub(super) struct Ticket {
    pub(super) completion: Arc<Completion>,
    pub(super) index: usize,
}

/// Takes delivery reports.
#[derive(Debug, Default)]
pub(super) struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let Ticket { completion, index } = *ticket;
        match result {
            Ok(message) => completion.report(1, |state| {
                state.positions[index] = Position {
                    partition: u32::try_from(message.partition()).unwrap_or_default(),
                    offset: u64::try_from(message.offset()).unwrap_or_default(),
                };
            }),
            Err((error, _)) => completion.report(1, |state| {
                state.error.get_or_insert_with(|| error.clone());
            }),
        }
    }
}
