//! Who a process is: user, groups, capabilities, limits, names. See capabilities(7), prctl(2).

use std::io;

use super::{check, check_int};

/// Capability sets as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

pub(crate) fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: callers in this crate use only options whose arguments are integers.
    check_int(unsafe { libc::prctl(option, argument, 0, 0, 0) })
}

pub(crate) fn drop_bounding(keep: u64, last: u32) -> io::Result<()> {
    for capability in 0..=last {
        let number = libc::c_ulong::from(capability);
        if keep & (1 << capability) != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, number) {
            // Who may not drop any may still lack this one.
            Err(error) if prctl(libc::PR_CAPBSET_READ, number)? == 1 => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn low(mask: u64) -> u32 {
    u32::try_from(mask & 0xffff_ffff).unwrap_or(0)
}

fn high(mask: u64) -> u32 {
    u32::try_from(mask >> 32).unwrap_or(0)
}

pub(crate) fn set_capabilities(sets: &CapabilitySets) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let part = |half: fn(u64) -> u32| CapabilityData {
        effective: half(sets.effective),
        permitted: half(sets.permitted),
        inheritable: half(sets.inheritable),
    };
    let data = [part(low), part(high)];
    // SAFETY: header and both data words live until the call returns; version 3 reads two.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// What this process may at most hand on: its permitted set.
pub(crate) fn permitted() -> io::Result<u64> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let empty = CapabilityData { effective: 0, permitted: 0, inheritable: 0 };
    let mut data = [empty; 2];
    // SAFETY: version 3 writes two words to `data`, which has room for them.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[1].permitted) << 32 | u64::from(data[0].permitted))
}

pub(crate) fn clear_ambient() -> io::Result<()> {
    // SAFETY: integers only.
    let result =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    check_int(result).map(drop)
}

pub(crate) fn raise_ambient(capability: u32) -> io::Result<()> {
    // SAFETY: integers only.
    let result = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE,
            libc::c_ulong::from(capability),
            0,
            0,
        )
    };
    check_int(result).map(drop)
}

pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length are of one slice; the raw call acts on this thread, the only one.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

pub(crate) fn set_gid(gid: u32) -> io::Result<()> {
    // SAFETY: integers only; one thread, so the raw call is complete.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

pub(crate) fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: integers only; one thread, so the raw call is complete.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

pub(crate) fn set_umask(mask: u32) {
    let _: rustix::fs::Mode = rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are of one string; the kernel copies it.
    check_int(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

pub(crate) fn set_domainname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are of one string; the kernel copies it.
    check_int(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Sets a limit of another process (0 = this one).
pub(crate) fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is a live local, the old one is not asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    check(result).map(drop)
}

/// A session keyring of its own, so that the caller's keys are not reachable. The answer is its number.
pub(crate) fn join_session_keyring(name: &str) -> io::Result<libc::c_long> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = super::c_string(name.as_bytes())?;
    // SAFETY: a NUL-terminated string that outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    check(result)
}

/// Who may find a keyring by its name, and so join it.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum Finder {
    Owner = 0x8_0000,
    Anyone = 0x8,
}

pub(crate) fn let_find_keyring(keyring: libc::c_long, finder: Finder) -> io::Result<()> {
    const KEYCTL_SETPERM: libc::c_long = 5;
    const KEYCTL_DESCRIBE: libc::c_long = 6;
    let mut told = [0_u8; 256];
    // SAFETY: the length is the buffer's.
    let length = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, keyring, told.as_mut_ptr(), told.len())
    })?;
    let told = told.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
    // type;uid;gid;rights;name
    let rights = std::str::from_utf8(told)
        .ok()
        .and_then(|told| u32::from_str_radix(told.split(';').nth(3)?, 16).ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))?;
    let rights = libc::c_long::from(rights | finder as u32);
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, keyring, rights) }).map(drop)
}

pub(crate) fn set_personality(persona: libc::c_ulong) -> io::Result<()> {
    // SAFETY: integers only.
    check_int(unsafe { libc::personality(persona) }).map(drop)
}
