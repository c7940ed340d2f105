//! Profiles that nobody thought of: each compiles to what it says, or is refused.

use proptest::array::uniform3;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::arch::{Arch, X32_BIT};
use super::table::lookup;
use super::tests::{Data, Reading, engine_like, interesting_values, run};
use super::*;
use crate::foreign::{assert_sentence, damaged, number};

static NAMES: [&str; 12] = [
    "read",
    "write",
    "ioctl",
    "socket",
    "accept4",
    "socketcall",
    "ipc",
    "semtimedop",
    "clone3",
    "mseal",
    "no_such_call",
    "set_tls",
];
static ACTIONS: [&str; 8] =
    ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "LOG", "TRACE", "TRAP", "NOTIFY"];
static ARCHES: [&str; 6] = ["X86_64", "X86", "X32", "AARCH64", "ARM", "S390X"];

fn action(among: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(among).prop_map(|action| format!("SCMP_ACT_{action}"))
}

fn errno() -> impl Strategy<Value = Option<u32>> {
    select(&[None, Some(0), Some(1), Some(38), Some(0xffff)])
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![1 => any::<u64>(), 2 => number()]
}

prop_compose! {
    fn argument()(
        index in select(&[0, 0, 1, 2, 5]), value in value(), other in value(), op in select(known_operators()),
    ) -> Value {
        json!({"index": index, "value": value, "valueTwo": other, "op": op})
    }
}

prop_compose! {
    fn entry()(
        names in vec(select(&NAMES), 0..=3), action in action(&ACTIONS), errno in errno(),
        args in prop_oneof![Just(Vec::new()), vec(argument(), 0..=3)],
    ) -> Value {
        // A filter that asks about `write` would ask about its own answer.
        let fits = |name: &&&str| action != "SCMP_ACT_NOTIFY" || **name != "write";
        let names: Vec<_> = names.iter().filter(fits).collect();
        json!({"names": names, "action": action, "errnoRet": errno, "args": args})
    }
}

prop_compose! {
    /// A profile that has nothing wrong.
    fn profile()(
        arches in vec(select(&ARCHES), 0..=4), action in action(&ACTIONS[..7]), errno in errno(),
        entries in vec(entry(), 0..=9),
    ) -> LinuxSeccomp {
        // Where x32 is, so is x86-64: the machine's own.
        let arches = arches.iter().chain([&"X86_64"]).map(|arch| format!("SCMP_ARCH_{arch}"));
        serde_json::from_value(json!({
            "defaultAction": action, "defaultErrnoRet": errno, "architectures": arches.collect::<Vec<_>>(),
            "listenerPath": "/l", "syscalls": entries,
        }))
        .unwrap()
    }
}

/// A call, before it is known which profile it is for.
#[derive(Clone, Debug)]
struct Call {
    arch: Arch,
    /// Of the profile, and one of its names; else `name`.
    entry: Option<(Index, Index)>,
    name: &'static str,
    /// Of the numbers that the profile makes interesting.
    value: Index,
    sub_call: Option<u64>,
    /// For each argument of the entry which of its numbers, and how far off.
    near: [(usize, u64); 3],
    beside: u32,
    special: Option<u32>,
    other_machine: bool,
}

prop_compose! {
    fn call()(
        arch in select(&Arch::ALL), entry in weighted(0.75, any::<(Index, Index)>()), name in select(&NAMES),
        value: Index, sub_call in weighted(0.3, 0_u64..25),
        near in uniform3((0_usize..4, select(&[0, 0, 0, 1, u64::MAX, 1 << 32]))),
        beside in select(&[0, 0, 0, 1, u32::MAX]),
        special in weighted(0.1, select(&[0, X32_BIT - 1, X32_BIT, 1 << 31, u32::MAX])),
        other_machine in prop::bool::weighted(0.05),
    ) -> Call {
        Call { arch, entry, name, value, sub_call, near, beside, special, other_machine }
    }
}

impl Call {
    /// One that the profile speaks of, or one beside it.
    fn data(&self, profile: &LinuxSeccomp, values: &[u64]) -> Data {
        let mut args = [*self.value.get(values); 6];
        args[0] = self.sub_call.unwrap_or(args[0]);
        let mut name: &str = self.name;
        if let Some((entry, at)) = self.entry.as_ref().filter(|_| !profile.syscalls.is_empty()) {
            let entry = entry.get(&profile.syscalls);
            if !entry.names.is_empty() {
                name = at.get::<String>(&entry.names);
            }
            for (arg, (which, off)) in entry.args.iter().zip(self.near) {
                let numbers = [arg.value, arg.value, arg.value_two, arg.value & arg.value_two];
                args[arg.index as usize] = numbers[which].wrapping_add(off);
            }
        }
        let arch = self.arch;
        let row = lookup(name).map_or(0, |row| row[arch.column()]);
        let number = row.wrapping_add(arch.number_base()).wrapping_add(self.beside);
        let audit = if self.other_machine { 0x8000_0016 } else { arch.audit() };
        Data { number: self.special.unwrap_or(number), audit, args }
    }
}

/// What the kernel checks before it takes a program (`bpf_check_classic`, `seccomp_check_filter`).
fn assert_loadable(program: &[libc::sock_filter]) {
    assert!(!program.is_empty() && program.len() <= 4096, "{}", program.len());
    for (at, step) in program.iter().enumerate() {
        let rest = program.len() - at - 1;
        let reach = match step.code {
            0x20 => usize::from(step.k % 4 == 0 && step.k < 64) - 1,
            0x54 | 0x06 => 0,
            0x05 => step.k as usize,
            0x15 | 0x25 | 0x35 => usize::from(step.jt.max(step.jf)),
            other => panic!("instruction {other:#x}"),
        };
        assert!(reach < rest || step.code == 0x06, "{at} of {}: {step:?}", program.len());
    }
}

proptest! {
    #[test]
    fn a_profile_decides_as_it_reads(
        profile in profile(), native in select(&[Arch::X86_64, Arch::Aarch64]), calls in vec(call(), 1..=160),
    ) {
        let program = compile_for(&profile, native).unwrap().instructions;
        assert_loadable(&program);
        let reading = Reading::new(&profile, native);
        let values = interesting_values(&profile);
        for call in &calls {
            let data = call.data(&profile, &values);
            let (is, should) = (run(&program, &data), reading.of(&data));
            prop_assert_eq!(is, should, "{:x?}: {:#x}, should be {:#x}", data, is, should);
        }
    }

    #[test]
    fn any_document_is_refused_or_a_program_the_kernel_takes(
        bytes in damaged(prop_oneof![7 => profile(), 1 => Just(engine_like())].prop_map(|profile| json!(profile))),
    ) {
        if let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(&bytes.0) {
            match compile(&profile) {
                Ok(program) => assert_loadable(&program.instructions),
                Err(error) => assert_sentence(error.to_string().trim()),
            }
        }
    }
}

/// Many calls in one entry with many conditions are a page of JSON and no gigabytes.
#[test]
fn what_a_profile_takes_grows_with_its_text() {
    let names = vec!["read"; 500];
    let args: Vec<Value> =
        (0..500).map(|value| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"})).collect();
    let profile: LinuxSeccomp = serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW", "args": args}],
    }))
    .unwrap();
    let policy = policy::Policy::new(&profile, Arch::X86_64).unwrap();
    let rules = policy.sections[0].ranges.iter().map(|(_, decision)| match decision {
        policy::Decision::Chain(rules) => rules.len(),
        policy::Decision::Return(_) => 0,
    });
    assert_eq!(rules.sum::<usize>(), names.len());
    let error = compile_for(&profile, Arch::X86_64).unwrap_err();
    assert!(matches!(error, Error::TooLong(length) if length < 4200), "{error}");
}
