//! From a seccomp profile to a classic BPF program (owner: seccgroup). Installing it is `sys`'s.
//!
//! The profile is `linux.seccomp` of the runtime specification, already resolved for this machine
//! by whoever wrote the configuration. [`policy`] decides what each call number gets,
//! [`assemble`] writes the program. `seccomp(2)` and the kernel's `seccomp_filter.rst` say how
//! the result is read.

mod arch;
mod assemble;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod golden;
mod policy;
mod table;
#[cfg(test)]
mod tests;

use crate::spec::oci::LinuxSeccomp;
use arch::Arch;

pub(crate) use SeccompError as Error;

/// A filter ready for `seccomp(SECCOMP_SET_MODE_FILTER)`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub(crate) instructions: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`, without NEW_LISTENER (see `needs_listener`).
    pub(crate) flags: u32,
    /// The profile notifies: the installer asks for a listener and sends it to `listenerPath`.
    pub(crate) needs_listener: bool,
}

impl Program {
    /// As the kernel is told them.
    pub(crate) fn all_flags(&self) -> u32 {
        self.flags | if self.needs_listener { FLAG_NEW_LISTENER } else { 0 }
    }
}

// Compat: the texts of unknown names are runc's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("string {0} is not a valid action for seccomp")]
    UnknownAction(String),
    #[error("string {0} is not a valid arch for seccomp")]
    UnknownArch(String),
    #[error("string {0} is not a valid operator for seccomp")]
    UnknownOperator(String),
    #[error("seccomp flag {0:?} not known to runc-rs")]
    UnknownFlag(String),
    #[error("seccomp condition on argument {0}: a call has arguments 0 to 5")]
    ArgumentIndex(u32),
    #[error("seccomp errnoRet {0} does not fit the 16 bits of a filter's result")]
    Errno(u32),
    #[error("SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyDefault,
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite,
    #[error("seccomp listenerPath is not set, though SCMP_ACT_NOTIFY is used")]
    NoListener,
    #[error("seccomp profile compiles to {0} instructions or more, the kernel takes at most 4096")]
    TooLong(usize),
}

pub(crate) fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    compile_for(profile, Arch::native())
}

fn compile_for(profile: &LinuxSeccomp, native: Arch) -> Result<Program, Error> {
    let policy = policy::Policy::new(profile, native)?;
    if policy.notifies && profile.listener_path.is_empty() {
        return Err(Error::NoListener);
    }
    Ok(Program {
        instructions: assemble::assemble(&policy)?,
        flags: flags(profile, policy.notifies)?,
        needs_listener: policy.notifies,
    })
}

/// Compat: a profile without flags gets SPEC_ALLOW, as runc 1.2 gives it.
fn flags(profile: &LinuxSeccomp, notifies: bool) -> Result<u32, Error> {
    // None at all is a choice too.
    let Some(named) = &profile.flags else { return Ok(FLAG_SPEC_ALLOW) };
    let mut flags = 0;
    for name in named {
        flags |= match name.as_str() {
            // One thread has no others to tell.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => FLAG_LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => FLAG_SPEC_ALLOW,
            // Only means something, and is only accepted, together with a listener.
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if notifies => FLAG_WAIT_KILLABLE_RECV,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 0,
            other => return Err(Error::UnknownFlag(other.to_owned())),
        };
    }
    Ok(flags)
}

/// The filter's result for an action; an absent `errnoRet` is EPERM.
fn action(name: &str, errno: Option<u32>) -> Result<u32, Error> {
    let data = errno.unwrap_or(EPERM);
    if data > 0xffff {
        return Err(Error::Errno(data));
    }
    match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(KILL_THREAD),
        "SCMP_ACT_KILL_PROCESS" => Ok(KILL_PROCESS),
        "SCMP_ACT_TRAP" => Ok(TRAP),
        "SCMP_ACT_ERRNO" => Ok(ERRNO | data),
        "SCMP_ACT_TRACE" => Ok(TRACE | data),
        "SCMP_ACT_LOG" => Ok(LOG),
        "SCMP_ACT_ALLOW" => Ok(ALLOW),
        "SCMP_ACT_NOTIFY" => Ok(USER_NOTIF),
        other => Err(Error::UnknownAction(other.to_owned())),
    }
}

/// `SCMP_ACT_*` names, for `features`.
pub(crate) fn known_actions() -> &'static [&'static str] {
    &[
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ]
}

/// `SECCOMP_FILTER_FLAG_*` names and bits, for `features`.
pub(crate) fn known_flags() -> [(&'static str, u32); 4] {
    [
        ("SECCOMP_FILTER_FLAG_TSYNC", FLAG_TSYNC),
        ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", FLAG_SPEC_ALLOW),
        ("SECCOMP_FILTER_FLAG_LOG", FLAG_LOG),
        ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", FLAG_WAIT_KILLABLE_RECV),
    ]
}

/// `SCMP_ARCH_*` names, for `features`.
pub(crate) fn known_arches() -> &'static [&'static str] {
    arch::KNOWN
}

/// `SCMP_CMP_*` names, for `features`.
pub(crate) fn known_operators() -> &'static [&'static str] {
    &[
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ]
}

const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_NEW_LISTENER: u32 = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;
