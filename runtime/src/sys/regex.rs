//! Regular expressions as the C library has them: POSIX, extended. See regex(3).

use std::ffi::CString;
use std::io;

/// Large enough for `regex_t` of glibc and musl, 64 bytes each.
#[repr(C, align(16))]
struct Storage([u8; 128]);

unsafe extern "C" {
    fn regcomp(
        regex: *mut Storage,
        pattern: *const libc::c_char,
        flags: libc::c_int,
    ) -> libc::c_int;
    fn regexec(
        regex: *const Storage,
        text: *const libc::c_char,
        count: usize,
        matches: *mut libc::c_void,
        flags: libc::c_int,
    ) -> libc::c_int;
    fn regfree(regex: *mut Storage);
}

/// The same numbers in both libraries.
const REG_EXTENDED: libc::c_int = 1;
const REG_NOSUB: libc::c_int = 8;

pub(crate) struct Regex(Box<Storage>);

impl Regex {
    pub(crate) fn new(pattern: &str) -> io::Result<Self> {
        let pattern = super::c_string(pattern.as_bytes())?;
        let mut storage = Box::new(Storage([0; 128]));
        // SAFETY: the storage is writable and as large as any `regex_t`; the pattern ends with NUL.
        match unsafe { regcomp(&raw mut *storage, pattern.as_ptr(), REG_EXTENDED | REG_NOSUB) } {
            0 => Ok(Self(storage)),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: compiled by `new`, alive, and never moved; no place for matches is named.
        unsafe { regexec(&raw const *self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled by `new` and freed only here.
        unsafe { regfree(&raw mut *self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_extended_and_match_anywhere() {
        let regex = Regex::new("^web-(1|2)$").unwrap();
        assert!(regex.is_match("web-1") && !regex.is_match("web-12") && !regex.is_match("a"));
        assert!(Regex::new("eb").unwrap().is_match("web"));
        assert!(Regex::new("(").is_err());
    }
}
