//! The allocator.

/// Has all threads share one arena; call it before there are others. Of glibc's own for each thread
/// every one keeps what a burst left in it, most of an idle daemon's memory.
pub(crate) fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator; nothing is passed by address.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
