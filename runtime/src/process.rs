//! What Linux knows of this process, under the names every Prometheus client library uses.

use std::fmt::Write as _;
use std::fs;

/// Clock ticks per second in `/proc`: `USER_HZ`, 100 on every architecture Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// The metrics as Prometheus text; empty where there is no `/proc`.
pub(crate) fn metrics() -> String {
    let mut text = String::new();
    let mut add = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
                .expect("writing to a String cannot fail");
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    add("process_resident_memory_bytes", "gauge", "Resident memory.", status_bytes(&status, "VmRSS:"));
    add("process_virtual_memory_bytes", "gauge", "Virtual memory.", status_bytes(&status, "VmSize:"));
    add("process_threads", "gauge", "OS threads.", status_number(&status, "Threads:"));
    add("process_cpu_seconds_total", "counter", "User and system CPU time.", cpu_seconds(&stat));
    add("process_open_fds", "gauge", "Open file descriptors.", open_fds());
    add("process_max_fds", "gauge", "Limit of open file descriptors.", max_fds());
    add("process_start_time_seconds", "gauge", "Start time since the Unix epoch.", start_time(&stat));
    text
}

/// Field `number` of `/proc/self/stat` as `proc(5)` counts them. The second is the program's name in
/// parentheses, which may itself hold blanks and parentheses.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_time(stat: &str) -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

fn status_number(status: &str, name: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn status_bytes(status: &str, name: &str) -> Option<f64> {
    status_number(status, name).map(|kib| kib * 1024.0)
}

fn open_fds() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory itself was open while it was counted.
    u32::try_from(count.saturating_sub(1)).ok().map(f64::from)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 4 0 12345 1 2";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(stat_field(stat, 22), Some(12345.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_started_before_now_and_after_2020() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let started = start_time(&stat).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(started > 1.577e9 && started <= now + 1.0, "{started} {now}");
    }
}
