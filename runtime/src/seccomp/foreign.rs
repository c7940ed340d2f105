//! Profiles that nobody thought of: each compiles to what it says, or is refused.

use serde_json::{Value, json};

use super::arch::{Arch, X32_BIT};
use super::table::lookup;
use super::tests::{Data, Reading, engine_like, interesting_values, run};
use super::*;
use crate::noise::{Noise, assert_sentence};

const NAMES: [&str; 12] = [
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
const ACTIONS: [&str; 8] =
    ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "LOG", "TRACE", "TRAP", "NOTIFY"];
const ARCHES: [&str; 6] = ["X86_64", "X86", "X32", "AARCH64", "ARM", "S390X"];

fn action(noise: &mut Noise, among: &[&str]) -> String {
    format!("SCMP_ACT_{}", noise.pick(among))
}

fn errno(noise: &mut Noise) -> Option<u32> {
    noise.pick(&[None, Some(0), Some(1), Some(38), Some(0xffff)])
}

fn value(noise: &mut Noise) -> u64 {
    if noise.one_in(3) { noise.bits() } else { noise.number() }
}

/// A profile that has nothing wrong.
fn profile(noise: &mut Noise) -> LinuxSeccomp {
    let argument = |noise: &mut Noise| {
        json!({
            "index": noise.pick(&[0, 0, 1, 2, 5]), "value": value(noise), "valueTwo": value(noise),
            "op": noise.pick(known_operators()),
        })
    };
    let entry = |noise: &mut Noise| {
        let mut names = noise.list(3, |noise| noise.pick(&NAMES));
        let action = action(noise, &ACTIONS);
        names.retain(|name| action != "SCMP_ACT_NOTIFY" || *name != "write");
        let args = if noise.one_in(2) { Vec::new() } else { noise.list(3, argument) };
        json!({"names": names, "action": action, "errnoRet": errno(noise), "args": args})
    };
    let mut architectures = noise.list(4, |noise| format!("SCMP_ARCH_{}", noise.pick(&ARCHES)));
    // Where x32 is, so is x86-64: the machine's own.
    architectures.push("SCMP_ARCH_X86_64".to_owned());
    serde_json::from_value(json!({
        "defaultAction": action(noise, &ACTIONS[..7]), "defaultErrnoRet": errno(noise),
        "architectures": architectures, "listenerPath": "/l", "syscalls": noise.list(9, entry),
    }))
    .unwrap()
}

/// A call that the profile speaks of, or one beside it.
fn call(noise: &mut Noise, profile: &LinuxSeccomp, values: &[u64]) -> Data {
    let arch = noise.pick(&Arch::ALL);
    let mut args = [noise.pick(values); 6];
    args[0] = if noise.one_in(3) { noise.below(25) as u64 } else { args[0] };
    let mut name = noise.pick(&NAMES).to_owned();
    if !profile.syscalls.is_empty() && !noise.one_in(4) {
        let entry = &profile.syscalls[noise.below(profile.syscalls.len())];
        let names = &entry.names;
        name = names.get(noise.below(names.len())).cloned().unwrap_or(name);
        for arg in &entry.args {
            let near =
                noise.pick(&[arg.value, arg.value, arg.value_two, arg.value & arg.value_two]);
            let near = near.wrapping_add(noise.pick(&[0, 0, 0, 1, u64::MAX, 1 << 32]));
            args[arg.index as usize] = near;
        }
    }
    let number = lookup(&name).map_or(0, |row| row[arch.column()]).wrapping_add(arch.number_base());
    let number = number.wrapping_add(noise.pick(&[0, 0, 0, 1, u32::MAX]));
    let number = if noise.one_in(9) {
        noise.pick(&[0, X32_BIT - 1, X32_BIT, 1 << 31, u32::MAX])
    } else {
        number
    };
    Data { number, audit: if noise.one_in(20) { 0x8000_0016 } else { arch.audit() }, args }
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

properties! {
    #[test]
    fn a_profile_decides_as_it_reads(noise) {
        let profile = profile(noise);
        let native = noise.pick(&[Arch::X86_64, Arch::Aarch64]);
        let program = compile_for(&profile, native).unwrap().instructions;
        assert_loadable(&program);
        let reading = Reading::new(&profile, native);
        let values = interesting_values(&profile);
        for _ in 0..300 {
            let data = call(noise, &profile, &values);
            let (is, should) = (run(&program, &data), reading.of(&data));
            assert_eq!(is, should, "{data:x?}: {is:#x}, should be {should:#x}: {profile:?}");
        }
    }

    #[test]
    fn any_document_is_refused_or_a_program_the_kernel_takes(noise) {
        let mut whole = serde_json::to_value(profile(noise)).unwrap();
        if noise.one_in(8) {
            whole = serde_json::to_value(engine_like()).unwrap();
        }
        let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(&noise.document(&whole)) else { return };
        match compile(&profile) {
            Ok(program) => assert_loadable(&program.instructions),
            Err(error) => assert_sentence(error.to_string().trim()),
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
