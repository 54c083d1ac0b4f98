//! What this machine gives: a directory, room, time, file descriptors.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Patient;
use super::check::Verdict;

/// Below it writes are about to fail …
const ROOM_MIN_BYTES: u64 = 256 * 1024 * 1024;
/// … and below it they soon will.
const ROOM_LOW_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// What the process opens beside its clients' connections.
const OWN_DESCRIPTORS: u64 = 512;
/// With fewer it does not get through a start.
const DESCRIPTORS_MIN: u64 = 256;
/// What was written may be this far ahead of the clock: file systems round.
const AHEAD_MAX: Duration = Duration::from_secs(5);
/// 2025-01-01: before this program was.
const EARLIEST_S: u64 = 1_735_689_600;

pub(super) fn data_dir(patient: &Patient) -> Verdict {
    let dir = patient.dir.path();
    let shown = dir.display();
    if !dir.exists() {
        let parent = existing(dir);
        return match try_write(parent) {
            Ok(()) => Verdict::ok(format!("{shown} is made at the first start")),
            Err(error) => Verdict::fail(
                format!("{shown} is not there, and {} cannot be written: {error}", parent.display()),
                "make it for the user that paystream runs as, or set server.data_dir",
            ),
        };
    }
    if !dir.is_dir() {
        return Verdict::fail(format!("{shown} is not a directory"), "set server.data_dir to one");
    }
    if let Err(error) = try_write(dir) {
        let hint = "let the user that paystream runs as write there, or set server.data_dir";
        return Verdict::fail(format!("{shown} cannot be written: {error}"), hint);
    }
    if super::settings::is_open_to_others(dir) {
        return Verdict::warn(format!("others may look into {shown}"), format!("chmod go= {shown}"));
    }
    let used = match &patient.holder {
        Some(holder) => format!("used by process {}", holder.pid),
        None => "not in use".to_owned(),
    };
    Verdict::ok(format!("{shown} can be written, {used}"))
}

fn try_write(dir: &Path) -> std::io::Result<()> {
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    std::fs::write(&probe, b"paystream doctor")?;
    std::fs::remove_file(&probe)
}

/// The directory, or the nearest one above it that is there.
fn existing(dir: &Path) -> &Path {
    let found = dir.ancestors().find(|dir| dir.is_dir());
    found.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn disk_space(patient: &Patient) -> Verdict {
    let dir = existing(patient.dir.path());
    match room(dir) {
        Ok((free, all)) => judge_room(free, all),
        Err(error) => Verdict::warn(
            format!("the room in {} is not known: {error}", dir.display()),
            "see that there are some GiB",
        ),
    }
}

#[cfg(unix)]
fn room(dir: &Path) -> std::io::Result<(u64, u64)> {
    let found = rustix::fs::statvfs(dir)?;
    Ok((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
}

#[cfg(not(unix))]
fn room(_dir: &Path) -> std::io::Result<(u64, u64)> {
    Err(std::io::ErrorKind::Unsupported.into())
}

fn judge_room(free: u64, all: u64) -> Verdict {
    let found = format!("{} free of {}", mib(free), mib(all));
    let hint = "make room, outside of the data directory, or lower log.retention.max_bytes";
    match free {
        _ if free < ROOM_MIN_BYTES => Verdict::fail(found, hint),
        _ if free < ROOM_LOW_BYTES || free < all / 20 => Verdict::warn(found, hint),
        _ => Verdict::ok(found),
    }
}

fn mib(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if bytes < 10 * 1024 * MIB {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{} GiB", bytes / (1024 * MIB))
    }
}

/// No time can be asked for here, but what was written here is not from the future.
pub(super) fn clock(patient: &Patient) -> Verdict {
    let now = SystemTime::now();
    let set = "set it, and have NTP keep it: `timedatectl set-ntp true`";
    let shown = crate::tail::time(
        now.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX)),
    );
    if now < SystemTime::UNIX_EPOCH + Duration::from_secs(EARLIEST_S) {
        return Verdict::fail(format!("it says {shown}"), set);
    }
    let written =
        [patient.dir.path().to_owned(), patient.dir.log(), patient.dir.warehouse(), patient.dir.keys()];
    let newest = written.iter().filter_map(|path| std::fs::metadata(path).ok()?.modified().ok()).max();
    if let Some(ahead) = newest.and_then(|newest| newest.duration_since(now).ok())
        && ahead > AHEAD_MAX
    {
        let message =
            format!("it says {shown}, and the data directory was written {} s later", ahead.as_secs());
        return Verdict::warn(message, set);
    }
    Verdict::ok(format!("{shown}, after everything in the data directory"))
}

pub(super) fn file_descriptors(patient: &Patient) -> Verdict {
    let needed = patient.config.server.max_connections as u64 + OWN_DESCRIPTORS;
    // Of the running system where there is one, as its limit is what counts.
    let process = patient.holder.as_ref().map_or_else(|| "self".to_owned(), |holder| holder.pid.to_string());
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits"))
        .or_else(|_| std::fs::read_to_string("/proc/self/limits"));
    let soft = limits.ok().and_then(|limits| soft_limit(&limits));
    let hint = format!("raise it to {needed} (`ulimit -n`, LimitNOFILE=) or lower server.max_connections");
    match soft {
        None => Verdict::ok("the limit is not known here"),
        Some(soft) if soft < DESCRIPTORS_MIN => Verdict::fail(format!("the limit is {soft}"), hint),
        Some(soft) if soft < needed => {
            let message =
                format!("the limit is {soft}, server.max_connections and the system's own need {needed}");
            Verdict::warn(message, hint)
        }
        Some(soft) => Verdict::ok(format!("the limit is {soft}, {needed} may be needed")),
    }
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Status;
    use super::*;

    #[test]
    fn little_room_is_a_warning_and_none_a_failure() {
        const GIB: u64 = 1024 * 1024 * 1024;
        assert_eq!(judge_room(50 * GIB, 100 * GIB).status, Status::Ok);
        assert_eq!(judge_room(GIB, 100 * GIB).status, Status::Warn);
        assert_eq!(judge_room(4 * GIB, 100 * GIB).status, Status::Warn, "less than a twentieth");
        assert_eq!(judge_room(GIB / 8, 100 * GIB).status, Status::Fail);
    }

    #[test]
    fn the_soft_limit_is_what_counts() {
        let limits = "Limit  Soft  Hard\nMax processes 7 8 processes\nMax open files            1024   524288   files\n";
        assert_eq!(soft_limit(limits), Some(1_024));
        assert_eq!(soft_limit("Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(soft_limit(""), None);
    }

    #[test]
    fn the_nearest_directory_there_is_is_found() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(existing(&temp.path().join("a/b")), temp.path());
        assert_eq!(existing(Path::new("no-such-directory-here")), Path::new("."));
    }
}
