//! Exit statuses, the same for every command.

use std::process::ExitCode;

use crate::output;

/// What a command came to.
pub(crate) type Outcome = Result<(), Failure>;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Status 1: it was tried and failed.
    Failed(anyhow::Error),
    /// Status 1: what was checked is not as it should be. The command has said so itself.
    CheckFailed,
    /// Status 2: the arguments, the configuration or the surroundings do not allow to start.
    Usage(anyhow::Error),
    /// Status 130: a signal ended it.
    Interrupted,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Marks errors that the user mends by starting the command differently.
pub(crate) trait OrUsage<T> {
    /// The error as a [`Failure::Usage`].
    fn or_usage(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrUsage<T> for Result<T, E> {
    fn or_usage(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Usage(error.into()))
    }
}

/// The exit status of an outcome, after saying on standard error what went wrong.
pub(crate) fn code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::CheckFailed) => ExitCode::from(1),
        Err(Failure::Failed(error)) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => {
            output::complain(&error);
            ExitCode::from(1)
        }
        Err(Failure::Usage(error)) => {
            output::complain(&error);
            ExitCode::from(2)
        }
        Err(Failure::Interrupted) => ExitCode::from(runtime::signals::EXIT_INTERRUPTED),
    }
}
