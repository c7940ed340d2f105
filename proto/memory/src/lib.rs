//! What a process gives back while it has nothing to do.
#![allow(unsafe_code, reason = "the allocator and madvise have no safe wrapper")]

use std::time::Duration;

/// How long a daemon's thread that waits for blocking work stays; when the last ones end, a burst is over.
pub const LULL: Duration = Duration::from_secs(2);

/// Has all threads share one arena; call it before there are others. Of glibc's own for each thread every
/// one keeps what a burst left in it, most of an idle daemon's memory.
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator; nothing is passed by address.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what a burst left: free memory between what is in use, and code.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number; nothing that is in use moves.
    unsafe {
        libc::malloc_trim(0);
    }
    forget_code();
}

/// Takes the program's own code and constants out of this process' memory; what is needed again comes back
/// from the page cache, a few pages at a time. A start or a burst of requests runs through nearly all of it,
/// waiting through little.
pub fn forget_code() {
    unsafe extern "C" fn forget(
        image: *mut libc::dl_phdr_info,
        _: libc::size_t,
        _: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the C library passes an image that stays loaded, and as many headers as it says.
        let (base, headers) = unsafe {
            let image = &*image;
            (image.dlpi_addr, std::slice::from_raw_parts(image.dlpi_phdr, image.dlpi_phnum.into()))
        };
        // SAFETY: takes a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned();
        for header in headers {
            // Only what nobody could write is as the file has it.
            if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
                continue;
            }
            let start = (base + header.p_vaddr) & !(page - 1);
            let length = base + header.p_vaddr + header.p_memsz - start;
            let Ok(length) = usize::try_from(length) else { continue };
            // SAFETY: a read-only mapping of a file, ours from the program's start to its end; the kernel
            // maps the same bytes again on access.
            unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        }
        // The first image is the program; there may be a C library, which others share.
        1
    }
    // SAFETY: the callback keeps nothing of what it is given.
    unsafe { libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of the program's read-only mappings that are in this process' memory.
    fn code_in_memory() -> u64 {
        let program = std::env::current_exe().unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut ours, mut sum) = (false, 0);
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("Rss:"), Some(kib)) if ours => sum += kib.parse::<u64>().unwrap(),
                (Some(range), Some(mode)) if range.contains('-') => {
                    ours = !mode.contains('w') && line.ends_with(program.to_str().unwrap());
                }
                _ => {}
            }
        }
        sum
    }

    #[test]
    fn code_that_was_given_back_comes_again_when_it_is_called() {
        let before = code_in_memory();
        forget_code();
        let after = code_in_memory();
        assert!(after < before, "{before} KiB before, {after} KiB after");
    }
}
