//! Our program beside the one that runc 1.1.5 with libseccomp 2.5.4 installs for the same profile.
//!
//! `golden/profile.json` is of our own writing: every operator and action, five architectures, call
//! names that both know. `golden/libseccomp.bpf` is what `PTRACE_SECCOMP_GET_FILTER` read out of a
//! container of that runc with it, on x86-64: `struct sock_filter` after `struct sock_filter`.
//! Left out of the profile because libseccomp decides otherwise than the profile reads: a second
//! entry for a call whose conditions look at other arguments than the first one's, and
//! conditions on calls that i386 multiplexes.

use super::arch::{Arch, X32_BIT};
use super::table::lookup;
use super::tests::{Data, interesting_values, run};
use super::*;

fn stock() -> Vec<libc::sock_filter> {
    let bytes = include_bytes!("golden/libseccomp.bpf");
    bytes
        .chunks_exact(8)
        .map(|part| libc::sock_filter {
            code: u16::from_le_bytes([part[0], part[1]]),
            jt: part[2],
            jf: part[3],
            k: u32::from_le_bytes([part[4], part[5], part[6], part[7]]),
        })
        .collect()
}

#[test]
fn our_program_decides_as_libseccomps_on_every_call_and_architecture() {
    let profile: LinuxSeccomp = serde_json::from_str(include_str!("golden/profile.json")).unwrap();
    let ours = compile_for(&profile, Arch::X86_64).unwrap().instructions;
    let stock = stock();
    assert_eq!(stock.len(), 1859);
    let values = interesting_values(&profile);
    let conditional: Vec<u32> = profile
        .syscalls
        .iter()
        .filter(|entry| !entry.args.is_empty())
        .flat_map(|entry| &entry.names)
        .filter_map(|name| lookup(name))
        .flatten()
        .copied()
        .collect();
    let mut decisions = 0;
    for audit in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0xc000_0015] {
        let numbers = (0..600).chain(0xf_0000..0xf_0010).chain([X32_BIT - 1, 1 << 31, u32::MAX]);
        for number in numbers.chain(X32_BIT..X32_BIT + 600) {
            let mut check = |args| {
                let data = Data { number, audit, args };
                let (ours, theirs) = (run(&ours, &data), run(&stock, &data));
                assert_eq!(ours, theirs, "{data:x?}: {ours:#x}, libseccomp {theirs:#x}");
                decisions += 1;
            };
            check([0; 6]);
            check([u64::MAX; 6]);
            // The same number may be another call elsewhere: it is looked at in full there too.
            for value in values.iter().filter(|_| conditional.contains(&(number & !X32_BIT))) {
                check([*value, 0, 0, 0, 0, 0]);
                check([0, *value, 0, 0, 0, 0]);
                check([1, 0, *value, 0, 0, 0]);
            }
        }
    }
    assert!(decisions > 50_000, "{decisions}");
}
