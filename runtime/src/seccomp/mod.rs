//! From a seccomp profile to a classic BPF program (owner: seccgroup). Installing it is `sys`'s.

use crate::spec::oci::LinuxSeccomp;

/// A filter ready for `seccomp(SECCOMP_SET_MODE_FILTER)`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub(crate) instructions: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`, without NEW_LISTENER (see `needs_listener`).
    pub(crate) flags: u32,
    /// The profile notifies: the installer asks for a listener and sends it to `listenerPath`.
    pub(crate) needs_listener: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("seccomp: not compiled in")]
    Missing,
}

pub(crate) fn compile(_profile: &LinuxSeccomp) -> Result<Program, Error> {
    Err(Error::Missing)
}

/// `SCMP_ACT_*` names, for `features`.
pub(crate) fn known_actions() -> &'static [&'static str] {
    &[]
}

/// `SCMP_ARCH_*` names, for `features`.
pub(crate) fn known_arches() -> &'static [&'static str] {
    &[]
}

/// `SCMP_CMP_*` names, for `features`.
pub(crate) fn known_operators() -> &'static [&'static str] {
    &[]
}
