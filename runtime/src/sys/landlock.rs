//! landlock(7): the rules that a process gives up rights by, for itself and all that come of it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::check;

/// What is denied unless a rule allows it; the kernel's bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Handled {
    pub(crate) files: u64,
    pub(crate) ports: u64,
    /// No rule allows these.
    pub(crate) scopes: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

#[repr(C)]
struct NetPort {
    allowed: u64,
    port: u64,
}

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: libc::c_int = 1;
const RULE_NET_PORT: libc::c_int = 2;

/// The version of what the kernel offers. `ENOSYS`, `EOPNOTSUPP`: none.
pub(crate) fn abi() -> io::Result<u32> {
    let none = std::ptr::null::<Handled>();
    // SAFETY: asked for the version the kernel takes no pointer.
    let version = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, CREATE_RULESET_VERSION)
    })?;
    u32::try_from(version).map_err(io::Error::other)
}

#[derive(Debug)]
pub(crate) struct Ruleset(OwnedFd);

impl Ruleset {
    pub(crate) fn new(handled: Handled) -> io::Result<Self> {
        // SAFETY: the kernel reads `handled`, of the size given; one that knows less of it wants the rest
        // to be zero.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const handled,
                size_of::<Handled>(),
                0_u32,
            )
        })?;
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: a descriptor that only we know.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The file, or the directory and all below it.
    pub(crate) fn allow_beneath(&self, parent: BorrowedFd<'_>, allowed: u64) -> io::Result<()> {
        let rule = PathBeneath { allowed, parent: parent.as_raw_fd() };
        self.add(RULE_PATH_BENEATH, (&raw const rule).cast())
    }

    pub(crate) fn allow_port(&self, port: u16, allowed: u64) -> io::Result<()> {
        let rule = NetPort { allowed, port: port.into() };
        self.add(RULE_NET_PORT, (&raw const rule).cast())
    }

    fn add(&self, kind: libc::c_int, rule: *const libc::c_void) -> io::Result<()> {
        let ruleset = self.0.as_fd().as_raw_fd();
        // SAFETY: both callers hold a rule of this kind, which the kernel reads.
        check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset, kind, rule, 0_u32) })
            .map(drop)
    }

    /// From now on, for ever. With no_new_privs or `CAP_SYS_ADMIN` only.
    pub(crate) fn restrict(&self) -> io::Result<()> {
        let ruleset = self.0.as_fd().as_raw_fd();
        // SAFETY: integers only.
        check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0_u32) }).map(drop)
    }
}
