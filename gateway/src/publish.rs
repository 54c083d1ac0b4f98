//! Writing to the log what a merchant said beside transactions.

use eventlog::{LogError, NewRecord};

use crate::problem::Problem;
use crate::state::{Shared, unavailable};

/// Appends records whose last one of a key counts, so that sending them again does no harm, and returns once
/// they are durable. `detail` is what the merchant is told when they may not be.
pub(crate) async fn publish(
    app: &Shared,
    records: Vec<NewRecord>,
    detail: &'static str,
) -> Result<(), Problem> {
    app.log.append(records).await.map(drop).map_err(|error| {
        if !matches!(error, LogError::Full | LogError::Closed) {
            tracing::error!(%error, "what a merchant said could not be written");
        }
        unavailable(detail)
    })
}
