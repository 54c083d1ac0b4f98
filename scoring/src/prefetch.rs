//! Tells the processor what will be needed, so that it does not wait for memory one event at a time.

/// Begins to bring the cache line of a place near, and does not wait for it. A hint: changes nothing, and does
/// nothing on processors for which it is not written.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    prefetch_at(address(place));
}

/// Where a place is, to ask for it while others work on what it is part of.
#[inline(always)]
pub(crate) fn address<T>(place: &T) -> usize {
    std::ptr::from_ref(place).addr()
}

/// As [`prefetch`], for an address.
#[inline(always)]
pub(crate) fn prefetch_at(address: usize) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: the instruction is part of every x86-64, neither reads nor writes as far as the program can
    // tell, and takes any address, of something live or not.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
