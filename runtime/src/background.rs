//! Work that must not delay an answer.

use thread_priority::{ThreadPriority, set_current_thread_priority};

/// Lets this thread, and the threads it starts, run behind all others of the machine that want the
/// processor: what compresses and merges can wait, a merchant's answer cannot.
///
/// Where the system refuses, the thread stays as it is, and a log line says so.
pub fn yield_to_answers() {
    if let Err(error) = set_current_thread_priority(ThreadPriority::Min) {
        tracing::debug!(?error, "a background thread keeps its usual priority");
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn the_calling_thread_gets_the_lowest_priority_and_no_other() {
        fn niceness() -> i64 {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux has it");
            // After the name, which may hold anything but ends with the last bracket; niceness is field 19.
            let fields = stat.rsplit_once(')').expect("a name").1;
            fields.split_whitespace().nth(16).expect("field 19").parse().expect("a number")
        }
        let before = niceness();
        let lowered = std::thread::spawn(|| {
            super::yield_to_answers();
            niceness()
        });
        assert_eq!((lowered.join().expect("no panic"), niceness()), (19, before));
    }
}
