//! How the program gets its memory.

use std::ffi::OsStr;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator's own setting of whether memory may come in huge pages.
const ALLOW_HUGE_PAGES: &str = "MIMALLOC_ALLOW_THP";

/// Has memory come in pages of 4 KiB from now on, unless the environment says what the allocator is to do.
///
/// The kernel fills a page of 2 MiB with zeroes when it is first touched, in the middle of a decision: some tenths of a
/// millisecond, and up to six where a virtual machine has to ask its host for it (ADR 0008).
pub(crate) fn keep_pages_small() {
    keep_pages_small_unless(std::env::var_os(ALLOW_HUGE_PAGES).as_deref());
}

fn keep_pages_small_unless(told: Option<&OsStr>) {
    #[cfg(target_os = "linux")]
    if told.is_none() {
        // Where it is refused, some decisions take longer, and that is all.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = told;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

    use super::*;

    #[test]
    fn pages_are_small_unless_the_allocator_was_told_otherwise() {
        disable_transparent_huge_pages(false).unwrap();
        keep_pages_small_unless(Some(OsStr::new("1")));
        assert!(!transparent_huge_pages_are_disabled().unwrap());
        keep_pages_small_unless(None);
        assert!(transparent_huge_pages_are_disabled().unwrap());
    }
}
