//! Compiled programs, run by a small interpreter, against a plain reading of the profile.

use std::collections::{BTreeMap, BTreeSet};

use super::arch::{Arch, X32_BIT, multiplexed};
use super::table::{ABSENT, SYSCALLS, lookup};
use super::*;
use crate::spec::oci::{LinuxSeccompArg, LinuxSyscall};

#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) number: u32,
    pub(super) audit: u32,
    pub(super) args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            _ => {
                let at = offset.checked_sub(16).expect("the instruction pointer is not looked at");
                let arg = self.args[(at / 8) as usize];
                u32::try_from(arg >> (8 * (at % 8)) & 0xffff_ffff).unwrap()
            }
        }
    }
}

pub(super) fn run(program: &[libc::sock_filter], data: &Data) -> u32 {
    let mut accumulator = 0_u32;
    let mut at = 0_usize;
    loop {
        let step = program[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
        match step.code {
            0x20 => accumulator = data.word(step.k),
            0x54 => accumulator &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x45 => at += jump(accumulator & step.k != 0),
            0x06 => return step.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// An entry that speaks of a call, and the sub-call through which it does.
type Spoken<'a> = (&'a LinuxSyscall, Option<u32>);

/// What the profile says, read plainly.
pub(super) struct Reading<'a> {
    profile: &'a LinuxSeccomp,
    arches: Vec<Arch>,
    default: u32,
    /// By architecture and number: the entries that speak of it, and through which sub-call.
    entries: BTreeMap<(Arch, u32), Vec<Spoken<'a>>>,
    newest: BTreeMap<Arch, u32>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(profile: &'a LinuxSeccomp, native: Arch) -> Self {
        let mut arches: Vec<Arch> =
            profile.architectures.iter().filter_map(|name| Arch::parse(name).unwrap()).collect();
        arches.push(native);
        let mut entries: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut newest = BTreeMap::new();
        for arch in &arches {
            let of = |name: &str| lookup(name).map(|row| row[arch.column()]);
            let of = |name: &str| of(name).filter(|number| *number != ABSENT);
            for entry in &profile.syscalls {
                for name in &entry.names {
                    if let Some(number) = of(name) {
                        entries.entry((*arch, number)).or_default().push((entry, None));
                        if number < 0xf_0000 {
                            let newest = newest.entry(*arch).or_insert(0);
                            *newest = number.max(*newest);
                        }
                    }
                    let through = multiplexed(name).filter(|_| *arch == Arch::X86);
                    if let Some((by, sub)) = through.filter(|_| entry.args.is_empty()) {
                        let number = of(by).unwrap();
                        entries.entry((*arch, number)).or_default().push((entry, Some(sub)));
                    }
                }
            }
        }
        let default = action(&profile.default_action, profile.default_errno_ret).unwrap();
        Self { profile, arches, default, entries, newest }
    }

    pub(super) fn of(&self, data: &Data) -> u32 {
        // All that lies above is x32's.
        let x32 = data.audit == Arch::X32.audit() && data.number >= X32_BIT;
        let x32 = x32 && self.arches.contains(&Arch::X32);
        let arch =
            self.arches.iter().find(|a| a.audit() == data.audit && (**a == Arch::X32) == x32);
        let Some(arch) = arch else { return KILL_THREAD };
        let number = if x32 { data.number - X32_BIT } else { data.number };
        let width = if arch.is_64_bit() { u64::MAX } else { 0xffff_ffff };
        let holds = |arg: &LinuxSeccompArg| {
            let is = data.args[arg.index as usize] & width;
            let (value, two) = (arg.value & width, arg.value_two & width);
            match arg.op.as_str() {
                "SCMP_CMP_EQ" => is == value,
                "SCMP_CMP_NE" => is != value,
                "SCMP_CMP_LT" => is < value,
                "SCMP_CMP_LE" => is <= value,
                "SCMP_CMP_GT" => is > value,
                "SCMP_CMP_GE" => is >= value,
                _ => is & value == two & value,
            }
        };
        let (mut conditional, mut named) = (None, false);
        for (entry, sub) in self.entries.get(&(*arch, number)).into_iter().flatten() {
            let result = action(&entry.action, entry.errno_ret).unwrap();
            if result == self.default {
                continue;
            }
            // Arm's private calls are newer than any other, and yet the profile may name them.
            named = true;
            let distinct: BTreeSet<u32> = entry.args.iter().map(|arg| arg.index).collect();
            let matches = match sub {
                Some(sub) => data.args[0] & 0xffff_ffff == u64::from(*sub),
                None if entry.args.is_empty() => return result,
                None if distinct.len() == entry.args.len() => entry.args.iter().all(holds),
                None => entry.args.iter().any(holds),
            };
            if matches {
                conditional = conditional.or(Some(result));
            }
        }
        let permissive = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
        let gentle = permissive.contains(&self.profile.default_action.as_str())
            || self.profile.default_errno_ret == Some(ENOSYS);
        match (conditional, self.newest.get(arch)) {
            (Some(result), _) => result,
            (None, Some(newest)) if !gentle && !named && number > *newest => ERRNO | ENOSYS,
            (None, Some(_)) if !gentle => self.default,
            _ if *arch == Arch::X86_64 && number >= X32_BIT && number != u32::MAX => KILL_THREAD,
            _ => self.default,
        }
    }
}

fn arg(index: u32, op: &str, value: u64, value_two: u64) -> LinuxSeccompArg {
    LinuxSeccompArg { index, value, value_two, op: format!("SCMP_CMP_{op}") }
}

fn entry(names: &[&str], action: &str, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    LinuxSyscall {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: format!("SCMP_ACT_{action}"),
        errno_ret: None,
        args,
    }
}

/// A big list of harmless calls and a few that depend on arguments, as container engines write.
pub(super) fn engine_like() -> LinuxSeccomp {
    let refused = [
        "acct",
        "add_key",
        "bpf",
        "clone",
        "clone3",
        "delete_module",
        "finit_module",
        "init_module",
        "ioctl",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "mount",
        "mseal",
        "open_by_handle_at",
        "perf_event_open",
        "personality",
        "pivot_root",
        "ptrace",
        "reboot",
        "request_key",
        "setns",
        "socket",
        "swapoff",
        "swapon",
        "umount2",
        "unshare",
        "userfaultfd",
        "listmount",
        "statmount",
        "open_tree_attr",
        "file_getattr",
        "file_setattr",
        "setxattrat",
        "getxattrat",
        "listxattrat",
        "removexattrat",
    ];
    let allowed: Vec<&str> =
        SYSCALLS.iter().map(|row| row.0).filter(|n| !refused.contains(n)).collect();
    let mut clone3 = entry(&["clone3"], "ERRNO", vec![]);
    clone3.errno_ret = Some(ENOSYS);
    LinuxSeccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        default_errno_ret: Some(1),
        architectures: ["X86_64", "X86", "X32", "AARCH64", "ARM", "S390X"]
            .map(|name| format!("SCMP_ARCH_{name}"))
            .to_vec(),
        syscalls: vec![
            entry(&allowed, "ALLOW", vec![]),
            entry(&["no_such_call_yet"], "ALLOW", vec![]),
            entry(&["personality"], "ALLOW", vec![arg(0, "EQ", 0, 0)]),
            entry(&["personality"], "ALLOW", vec![arg(0, "EQ", 8, 0)]),
            entry(&["personality"], "ALLOW", vec![arg(0, "EQ", 0xffff_ffff, 0)]),
            entry(&["clone"], "ALLOW", vec![arg(0, "MASKED_EQ", 0x7e02_0000, 0)]),
            entry(&["socket"], "ALLOW", vec![arg(0, "NE", 40, 0)]),
            entry(&["ioctl"], "TRACE", vec![arg(1, "EQ", 0x5412, 0), arg(2, "GT", 1 << 33, 0)]),
            entry(&["ioctl"], "LOG", vec![arg(1, "NE", 0x5412, 0)]),
            clone3,
        ],
        ..LinuxSeccomp::default()
    }
}

pub(super) fn interesting_values(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut values = BTreeSet::from([0, 1, u64::MAX, 0xffff_ffff, 1 << 32, 40, 41]);
    for arg in profile.syscalls.iter().flat_map(|entry| &entry.args) {
        for value in [arg.value, arg.value_two, arg.value & arg.value_two] {
            for bit in [0, 1 << 32, 1 << 63, 1 << 17] {
                values.extend([value ^ bit, (value ^ bit).wrapping_add(1), value.wrapping_sub(1)]);
            }
        }
    }
    values.into_iter().collect()
}

/// Every number, every architecture, boundary values in every argument that is looked at.
fn agrees(profile: &LinuxSeccomp, native: Arch) -> usize {
    let program = compile_for(profile, native).unwrap().instructions;
    let reading = Reading::new(profile, native);
    let values = interesting_values(profile);
    let mut looked_at: BTreeSet<usize> =
        profile.syscalls.iter().flat_map(|e| &e.args).map(|arg| arg.index as usize).collect();
    looked_at.insert(0);
    let conditional: BTreeSet<u32> = profile
        .syscalls
        .iter()
        .filter(|entry| !entry.args.is_empty())
        .flat_map(|entry| &entry.names)
        .chain(&["socketcall".to_owned(), "ipc".to_owned()])
        .filter_map(|name| lookup(name))
        .flatten()
        .copied()
        .collect();
    for audit in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0x8000_0016] {
        let numbers = (0..700).chain(0xf_0000..0xf_0010).chain([X32_BIT - 1, 1 << 31, u32::MAX]);
        let numbers = numbers.chain(X32_BIT..X32_BIT + 700);
        for number in numbers {
            let check = |args| {
                let data = Data { number, audit, args };
                let (is, should) = (run(&program, &data), reading.of(&data));
                assert_eq!(is, should, "{data:x?}: {is:#x}, should be {should:#x}");
            };
            if conditional.contains(&(number & !X32_BIT)) {
                for index in &looked_at {
                    for value in &values {
                        for beside in [0, 0x5412, u64::MAX, 1 << 33, (1 << 33) + 1] {
                            let mut args = [beside; 6];
                            args[*index] = *value;
                            check(args);
                        }
                    }
                }
            } else {
                check([0; 6]);
                check([u64::MAX; 6]);
            }
        }
    }
    program.len()
}

#[test]
fn an_engine_like_profile_decides_as_it_reads_on_every_architecture() {
    for native in [Arch::X86_64, Arch::Aarch64] {
        let length = agrees(&engine_like(), native);
        assert!(length < 1500, "{length} instructions");
    }
}

#[test]
fn each_architecture_alone_decides_as_it_reads() {
    for name in ["X86_64", "X86", "X32", "AARCH64", "ARM"] {
        let mut profile = engine_like();
        profile.architectures = vec![format!("SCMP_ARCH_{name}")];
        agrees(&profile, Arch::X86_64);
    }
}

#[test]
fn every_operator_compares_both_halves() {
    let pivot = 0x1234_5678_9abc_def0;
    for op in ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"] {
        let mut profile = engine_like();
        profile.syscalls = vec![
            entry(&["ioctl"], "ALLOW", vec![arg(5, op, pivot, pivot & !0xf0)]),
            entry(&["read"], "LOG", vec![arg(1, op, 7, 7), arg(2, "GE", 1 << 32, 0)]),
        ];
        agrees(&profile, Arch::X86_64);
    }
}

#[test]
fn permissive_defaults_leave_newer_calls_alone() {
    for default in ["ALLOW", "LOG", "TRACE", "KILL", "KILL_PROCESS", "TRAP", "ERRNO"] {
        for errno in [None, Some(1), Some(38)] {
            let mut profile = engine_like();
            profile.default_action = format!("SCMP_ACT_{default}");
            profile.default_errno_ret = errno;
            profile.architectures.retain(|name| !name.ends_with("X32"));
            agrees(&profile, Arch::X86_64);
        }
    }
}

#[test]
fn a_call_newer_than_the_profile_is_absent_rather_than_forbidden() {
    let program = compile_for(&engine_like(), Arch::X86_64).unwrap().instructions;
    let answer = |number| run(&program, &Data { number, audit: 0xc000_003e, args: [0; 6] });
    assert_eq!(answer(462), ERRNO | 38, "mseal is newer than the newest name of the profile");
    assert_eq!(answer(457), ERRNO | 1, "statmount is older than the newest name");
    assert_eq!(answer(0), ALLOW);
}

#[test]
fn an_unconditional_entry_beats_conditions_before_and_after_it() {
    let mut profile = engine_like();
    profile.syscalls = vec![
        entry(&["read"], "LOG", vec![arg(0, "EQ", 1, 0)]),
        entry(&["read"], "ALLOW", vec![]),
        entry(&["read"], "KILL", vec![]),
        entry(&["write"], "ERRNO", vec![]),
        entry(&["write"], "ALLOW", vec![arg(0, "EQ", 1, 0), arg(0, "EQ", 2, 0)]),
    ];
    agrees(&profile, Arch::X86_64);
    let program = compile_for(&profile, Arch::X86_64).unwrap().instructions;
    let answer =
        |number, fd| run(&program, &Data { number, audit: 0xc000_003e, args: [fd, 0, 0, 0, 0, 0] });
    assert_eq!(answer(0, 1), ALLOW);
    assert_eq!((answer(1, 1), answer(1, 2), answer(1, 3)), (ALLOW, ALLOW, ERRNO | 1));
}

#[test]
fn i386_socketcall_follows_the_calls_it_stands_for() {
    let mut profile = engine_like();
    profile.syscalls = vec![entry(&["socket", "shmat"], "ALLOW", vec![])];
    agrees(&profile, Arch::X86_64);
    let program = compile_for(&profile, Arch::X86_64).unwrap().instructions;
    let answer = |number, sub| {
        run(&program, &Data { number, audit: 0x4000_0003, args: [sub, 0, 0, 0, 0, 0] })
    };
    assert_eq!((answer(102, 1), answer(102, 2)), (ALLOW, ERRNO | 1));
    assert_eq!((answer(117, 21), answer(117, 22)), (ALLOW, ERRNO | 1));
}

#[test]
fn a_large_program_reaches_its_far_answers() {
    let mut profile = engine_like();
    let names: Vec<&str> = SYSCALLS.iter().map(|row| row.0).step_by(3).collect();
    profile.architectures.truncate(1);
    profile.syscalls = names
        .iter()
        .map(|name| {
            entry(&[name], "LOG", (0..3).map(|index| arg(index, "GT", 1 << 34, 0)).collect())
        })
        .collect();
    let program = compile_for(&profile, Arch::X86_64).unwrap().instructions;
    assert!(program.len() > 1000);
    let reading = Reading::new(&profile, Arch::X86_64);
    for number in 0..480 {
        for value in [0, 1 << 34, 1 << 35] {
            let data = Data { number, audit: 0xc000_003e, args: [value; 6] };
            assert_eq!(run(&program, &data), reading.of(&data));
        }
    }
}

#[test]
fn a_program_beyond_the_kernels_limit_is_refused() {
    let mut profile = engine_like();
    profile.syscalls =
        (0..2000).map(|value| entry(&["read"], "ALLOW", vec![arg(0, "EQ", value, 0)])).collect();
    assert!(matches!(compile(&profile), Err(Error::TooLong(length)) if length > 4096));
}

#[test]
fn unknown_words_are_named() {
    let error = |change: fn(&mut LinuxSeccomp)| {
        let mut profile = engine_like();
        change(&mut profile);
        compile(&profile).unwrap_err()
    };
    assert_eq!(
        error(|p| p.default_action = "SCMP_ACT_X".into()),
        Error::UnknownAction("SCMP_ACT_X".into())
    );
    assert_eq!(error(|p| p.architectures = vec!["Z80".into()]), Error::UnknownArch("Z80".into()));
    assert_eq!(error(|p| p.flags = Some(vec!["F".into()])), Error::UnknownFlag("F".into()));
    assert_eq!(error(|p| p.syscalls[2].args[0].index = 6), Error::ArgumentIndex(6));
    assert_eq!(
        error(|p| p.syscalls[2].args[0].op = "GT".into()),
        Error::UnknownOperator("GT".into())
    );
    assert_eq!(error(|p| p.default_errno_ret = Some(70_000)), Error::Errno(70_000));
    assert_eq!(error(|p| p.default_action = "SCMP_ACT_NOTIFY".into()), Error::NotifyDefault);
    assert_eq!(error(|p| p.syscalls.push(entry(&["write"], "NOTIFY", vec![]))), Error::NotifyWrite);
    assert_eq!(error(|p| p.syscalls.push(entry(&["bpf"], "NOTIFY", vec![]))), Error::NoListener);
}

#[test]
fn flags_are_the_kernels_bits() {
    let mut profile = engine_like();
    assert_eq!(compile(&profile).unwrap().flags, 4, "none given: SPEC_ALLOW");
    profile.flags = Some(Vec::new());
    assert_eq!(compile(&profile).unwrap().flags, 0, "none wanted");
    let all = ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"];
    profile.flags = Some(all.map(|name| format!("SECCOMP_FILTER_FLAG_{name}")).to_vec());
    assert_eq!(compile(&profile).unwrap().flags, 6);
    profile.listener_path = "/run/agent.sock".into();
    profile.syscalls.push(entry(&["bpf"], "NOTIFY", vec![]));
    let program = compile(&profile).unwrap();
    assert_eq!((program.flags, program.needs_listener), (6 | 32, true));
}
