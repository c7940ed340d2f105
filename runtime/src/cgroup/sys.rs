//! bpf(2) for device programs, and waiting on a cgroup's events file.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `union bpf_attr` as BPF_PROG_LOAD reads it.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// … as BPF_PROG_ATTACH and BPF_PROG_DETACH read it.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replace: u32,
}

/// … as BPF_PROG_QUERY reads it.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
}

/// … as BPF_PROG_GET_FD_BY_ID reads it.
#[repr(C)]
#[derive(Default)]
struct ByIdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

/// Loads a device program.
pub(super) fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        program_type: PROGRAM_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: address(instructions.as_ptr().cast()),
        licence: address(LICENCE.as_ptr().cast()),
        ..LoadAttr::default()
    };
    let fd = bpf(PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds the program to those of the cgroup.
pub(super) fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attach_attr(cgroup, program)?;
    attr.flags = ALLOW_MULTI;
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

pub(super) fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf(PROG_DETACH, &mut attach_attr(cgroup, program)?).map(drop)
}

/// The device programs attached to the cgroup itself.
pub(super) fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; 64];
    let mut attr = QueryAttr {
        target: raw(cgroup)?,
        attach_type: ATTACH_DEVICE,
        programs: address(ids.as_mut_ptr().cast_const().cast()),
        count: 64,
        ..QueryAttr::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    let count = usize::try_from(attr.count).map_err(io::Error::other)?;
    ids.iter()
        .take(count)
        .map(|id| {
            let fd = bpf(PROG_GET_FD_BY_ID, &mut ByIdAttr { id: *id, ..ByIdAttr::default() })?;
            // SAFETY: the kernel just made this descriptor for us; nothing else owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect()
}

fn attach_attr(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<AttachAttr> {
    Ok(AttachAttr {
        target: raw(cgroup)?,
        program: raw(program)?,
        attach_type: ATTACH_DEVICE,
        ..AttachAttr::default()
    })
}

fn raw(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

fn address(pointer: *const u8) -> u64 {
    u64::try_from(pointer.addr()).expect("addresses have at most 64 bits")
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    let (attr, size) = (std::ptr::from_mut(attr), size_of::<T>());
    // SAFETY: `attr` is one of the layouts above, exclusively borrowed for the call and passed
    // with its size; the buffers it points to outlive the call in the callers' frames.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

const LICENCE: &[u8] = b"Apache\0";

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;

const PROGRAM_CGROUP_DEVICE: u32 = 15;
const ATTACH_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
