//! Points at which tests let the service die, as if the process were killed there.

#[cfg(not(test))]
#[allow(clippy::unnecessary_wraps)]
pub(crate) const fn point(_database: &str, _name: &'static str) -> anyhow::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use self::armed::{arm, is_armed, point};

#[cfg(test)]
mod armed {
    use std::sync::{Mutex, PoisonError};

    struct Armed {
        database: String,
        name: &'static str,
        passes: u32,
    }

    static ARMED: Mutex<Vec<Armed>> = Mutex::new(Vec::new());

    /// Lets the `passes`th passage of a point be the last of the service that fills a database.
    pub(crate) fn arm(database: &str, name: &'static str, passes: u32) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        armed.push(Armed { database: database.to_owned(), name, passes });
    }

    /// Whether a point of this database's service was not reached yet.
    pub(crate) fn is_armed(database: &str) -> bool {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|armed| armed.database == database)
    }

    pub(crate) fn point(database: &str, name: &'static str) -> anyhow::Result<()> {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = armed.iter().position(|a| a.database == database && a.name == name) else {
            return Ok(());
        };
        armed[at].passes -= 1;
        if armed[at].passes == 0 {
            armed.remove(at);
            anyhow::bail!("killed {name}");
        }
        Ok(())
    }
}
