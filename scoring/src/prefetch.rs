//! Tells the processor what will be needed, so that it does not wait for memory one event at a time.

/// Begins to bring the cache line of a place near, and does not wait for it. A hint: changes nothing, and does
/// nothing on processors for which it is not written.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: the instruction is part of every x86-64, neither reads nor writes as far as the program can
    // tell, and takes any address; this one is of a live value even so.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
