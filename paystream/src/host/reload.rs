//! Another ruleset without a restart: `POST /-/reload` and SIGHUP read the configured folders again, and
//! `GET /-/ruleset` says what is in force.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use events::ListDeclaration;
use fraud_analyzer::{ReloadError, RulesetStatus, Rulesets};
use runtime::signals::Hangups;
use scoring::LoadErrors;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::problem;
use crate::ruleset::ScoringConfig;

/// Far longer than a reload takes, other than while the analyzer recovers.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_AFTER_S: &str = "5";

/// Reads the ruleset again when it is asked to.
#[derive(Clone)]
pub(crate) struct Reloader {
    pub(crate) scoring: ScoringConfig,
    pub(crate) rulesets: Rulesets,
    /// The lists that the gateway takes changes to, when it is in this process.
    pub(crate) lists: Option<watch::Sender<Vec<ListDeclaration>>>,
}

impl Reloader {
    async fn reload(&self) -> Result<RulesetStatus, ReloadError> {
        let (scoring, lists) = (self.scoring.clone(), self.lists.clone());
        let load = move || {
            let ruleset = scoring.ruleset()?;
            // Changes to a list that is not in force yet wait in the log until it is.
            if let Some(lists) = lists {
                lists.send_replace(ruleset.lists());
            }
            Ok(ruleset)
        };
        self.rulesets.reload(load).await
    }

    /// The routes, without access control.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/-/reload", post(reload))
            .route("/-/ruleset", get(ruleset))
            .with_state(self.clone())
    }

    /// Reloads at every SIGHUP, until `stop`.
    pub(crate) fn heed(self, mut hangups: Hangups, stop: CancellationToken) {
        let heed = async move {
            loop {
                hangups.next().await;
                tracing::info!("SIGHUP received: reading the ruleset again");
                // It says itself what came of it.
                let _ = self.reload().await;
            }
        };
        tokio::spawn(stop.run_until_cancelled_owned(heed));
    }
}

async fn reload(State(reloader): State<Reloader>) -> Response {
    match tokio::time::timeout(ANSWER_DEADLINE, reloader.reload()).await {
        Ok(Ok(status)) if status.warm_up.is_some() => (StatusCode::ACCEPTED, Json(status)).into_response(),
        Ok(Ok(status)) => Json(status).into_response(),
        Ok(Err(ReloadError::Refused(error))) => refused(&error),
        Ok(Err(error @ ReloadError::Failed(_))) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, "Reload failed", &error.to_string(), &[])
        }
        Ok(Err(ReloadError::Stopped)) | Err(_) => unavailable(),
    }
}

async fn ruleset(State(reloader): State<Reloader>) -> Response {
    reloader.rulesets.status().map_or_else(unavailable, |status| Json(status).into_response())
}

fn refused(error: &anyhow::Error) -> Response {
    let errors = match error.downcast_ref::<LoadErrors>() {
        Some(LoadErrors(errors)) => errors.iter().map(ToString::to_string).collect(),
        None => vec![format!("{error:#}")],
    };
    let detail = "The files are wrong. The ruleset in force stays.";
    problem(StatusCode::UNPROCESSABLE_ENTITY, "Ruleset refused", detail, &errors)
}

fn unavailable() -> Response {
    let detail = "The analyzer does not decide yet, or not any more. Ask again when it does.";
    let answer = problem(StatusCode::SERVICE_UNAVAILABLE, "Not ready", detail, &[]);
    ([(header::RETRY_AFTER, RETRY_AFTER_S)], answer).into_response()
}
