//! Device rules: their sum, as v1 list lines and as an eBPF program for v2.
//!
//! v1: the kernel's `cgroup-v1/devices.rst`. v2: `BPF_PROG_TYPE_CGROUP_DEVICE`, which sees type,
//! access, major and minor of each open or mknod and answers 1 or 0.

use crate::spec::oci::DeviceRule;

/// What all rules together say: a default and its exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DevicePolicy {
    pub(super) allow_by_default: bool,
    exceptions: Vec<Exception>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    Char,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceRuleError {
    #[error("invalid cgroup device type {0:?}")]
    Kind(String),
    #[error("invalid device access {0:?}")]
    Access(String),
    #[error("invalid device number {0}")]
    Number(i64),
}

impl DevicePolicy {
    /// Rules in order, each over the last; then what every container may use.
    pub(super) fn new(rules: &[DeviceRule]) -> Result<Self, DeviceRuleError> {
        let mut policy = Self { allow_by_default: false, exceptions: Vec::new() };
        for rule in rules {
            policy.add(rule)?;
        }
        for (kind, major, minor, access) in ALWAYS {
            policy.change(
                true,
                Exception { kind: *kind, major: *major, minor: *minor, access: *access },
            );
        }
        Ok(policy)
    }

    fn add(&mut self, rule: &DeviceRule) -> Result<(), DeviceRuleError> {
        let mut access = 0;
        for letter in rule.access.chars() {
            access |= match letter {
                'm' => MKNOD,
                'r' => READ,
                'w' => WRITE,
                // Compat: letters that mean nothing do nothing.
                _ => 0,
            };
        }
        if access == 0 && !rule.access.is_empty() {
            return Err(DeviceRuleError::Access(rule.access.clone()));
        }
        let access = if rule.access.is_empty() { MKNOD | READ | WRITE } else { access };
        let number = |number: Option<i64>| match number {
            None => Ok(None),
            Some(number) if number < 0 => Ok(None),
            Some(number) => {
                u32::try_from(number).map(Some).map_err(|_| DeviceRuleError::Number(number))
            }
        };
        let (major, minor) = (number(rule.major)?, number(rule.minor)?);
        let kinds: &[Kind] = match rule.kind.as_str() {
            "" | "a" => {
                if major.is_none() && minor.is_none() && access == MKNOD | READ | WRITE {
                    self.allow_by_default = rule.allow;
                    self.exceptions.clear();
                    return Ok(());
                }
                &[Kind::Block, Kind::Char]
            }
            "b" => &[Kind::Block],
            "c" | "u" => &[Kind::Char],
            other => return Err(DeviceRuleError::Kind(other.to_owned())),
        };
        for kind in kinds {
            self.change(rule.allow, Exception { kind: *kind, major, minor, access });
        }
        Ok(())
    }

    fn change(&mut self, allow: bool, change: Exception) {
        let same = |other: &Exception| {
            (other.kind, other.major, other.minor) == (change.kind, change.major, change.minor)
        };
        let position = self.exceptions.iter().position(same);
        if allow == self.allow_by_default {
            if let Some(at) = position {
                self.exceptions[at].access &= !change.access;
                if self.exceptions[at].access == 0 {
                    self.exceptions.remove(at);
                }
            }
        } else if let Some(at) = position {
            self.exceptions[at].access |= change.access;
        } else {
            self.exceptions.push(change);
        }
    }

    /// Writes for v1: (file, line), in order.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let (base, exception) = if self.allow_by_default {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let line = |e: &Exception| {
            let kind = if e.kind == Kind::Block { 'b' } else { 'c' };
            format!("{kind} {}:{} {}", number(e.major), number(e.minor), letters(e.access))
        };
        let exceptions = self.exceptions.iter().map(|e| (exception, line(e)));
        std::iter::once((base, "a".to_owned())).chain(exceptions).collect()
    }

    /// Whether there is no rule at all.
    pub(super) fn allows_all(&self) -> bool {
        self.allow_by_default && self.exceptions.is_empty()
    }

    /// The exceptions one by one.
    pub(super) fn listed(&self) -> impl Iterator<Item = Listed> {
        self.exceptions.iter().map(|exception| Listed {
            is_block: exception.kind == Kind::Block,
            major: exception.major,
            minor: exception.minor,
            access: letters(exception.access),
        })
    }

    /// The v2 program: exceptions one after the other, then the default.
    pub(super) fn program(&self) -> Vec<u64> {
        let mut code = vec![
            insn(LOAD_WORD, 2, 1, 0, 0),
            insn(MOVE32, 3, 2, 0, 0),
            insn(AND32, 2, 0, 0, 0xffff),
            insn(SHIFT_RIGHT32, 3, 0, 0, 16),
            insn(LOAD_WORD, 4, 1, 4, 0),
            insn(LOAD_WORD, 5, 1, 8, 0),
        ];
        for exception in &self.exceptions {
            code.extend(self.block(exception));
        }
        code.push(insn(MOVE32_IMM, 0, 0, 0, u32::from(self.allow_by_default)));
        code.push(insn(EXIT, 0, 0, 0, 0));
        code
    }

    fn block(&self, exception: &Exception) -> Vec<u64> {
        // Each test jumps over the rest of the block; the distance is known once it is whole.
        let mut tests: Vec<(u8, u8, u32)> = Vec::new();
        let kind = if exception.kind == Kind::Block { 1 } else { 2 };
        tests.push((JUMP_NE, 2, kind));
        tests.extend(exception.major.map(|major| (JUMP_NE32, 4, major)));
        tests.extend(exception.minor.map(|minor| (JUMP_NE32, 5, minor)));
        let access = u32::from(exception.access);
        let mut code: Vec<u64> = Vec::new();
        let tail = 2; // the answer and the exit
        let masks = if exception.access == MKNOD | READ | WRITE { 0 } else { 3 };
        for (index, (code_, register, value)) in tests.iter().enumerate() {
            let skip = tests.len() - 1 - index + masks + tail;
            code.push(insn(*code_, *register, 0, offset(skip), *value));
        }
        if masks != 0 {
            code.push(insn(MOVE32, 1, 3, 0, 0));
            if self.allow_by_default {
                // Any of the forbidden accesses.
                code.push(insn(AND32, 1, 0, 0, access));
                code.push(insn(JUMP_EQ, 1, 0, offset(tail), 0));
            } else {
                // Nothing but the allowed accesses.
                code.push(insn(AND32, 1, 0, 0, !access & 7));
                code.push(insn(JUMP_NE, 1, 0, offset(tail), 0));
            }
        }
        code.push(insn(MOVE32_IMM, 0, 0, 0, u32::from(!self.allow_by_default)));
        code.push(insn(EXIT, 0, 0, 0, 0));
        code
    }
}

/// One exception for whoever writes it in a way of its own.
pub(super) struct Listed {
    pub(super) is_block: bool,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: String,
}

fn letters(access: u8) -> String {
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    letters.iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| *letter).collect()
}

fn offset(instructions: usize) -> i16 {
    i16::try_from(instructions).expect("a block is a handful of instructions")
}

/// `struct bpf_insn` as one word: code, registers, offset, immediate.
fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: u32) -> u64 {
    let offset = offset.to_le_bytes();
    let imm = immediate.to_le_bytes();
    let registers = to | from << 4;
    u64::from_le_bytes([code, registers, offset[0], offset[1], imm[0], imm[1], imm[2], imm[3]])
}

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;

/// BPF_LDX | BPF_MEM | BPF_W
const LOAD_WORD: u8 = 0x61;
/// BPF_ALU | BPF_MOV | BPF_X and | BPF_K
const MOVE32: u8 = 0xbc;
const MOVE32_IMM: u8 = 0xb4;
/// BPF_ALU | BPF_AND | BPF_K
const AND32: u8 = 0x54;
/// BPF_ALU | BPF_RSH | BPF_K
const SHIFT_RIGHT32: u8 = 0x74;
/// BPF_JMP | BPF_JEQ, BPF_JNE | BPF_K
const JUMP_EQ: u8 = 0x15;
const JUMP_NE: u8 = 0x55;
/// BPF_JMP32 | BPF_JNE | BPF_K: the immediate is not sign-extended
const JUMP_NE32: u8 = 0x56;
/// BPF_JMP | BPF_EXIT
const EXIT: u8 = 0x95;

/// Compat: runc lets every container make any node, and use these.
const ALWAYS: &[(Kind, Option<u32>, Option<u32>, u8)] = &[
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), MKNOD | READ | WRITE),
    (Kind::Char, Some(1), Some(8), MKNOD | READ | WRITE),
    (Kind::Char, Some(1), Some(7), MKNOD | READ | WRITE),
    (Kind::Char, Some(5), Some(0), MKNOD | READ | WRITE),
    (Kind::Char, Some(1), Some(5), MKNOD | READ | WRITE),
    (Kind::Char, Some(1), Some(9), MKNOD | READ | WRITE),
    (Kind::Char, Some(136), None, MKNOD | READ | WRITE),
    (Kind::Char, Some(5), Some(2), MKNOD | READ | WRITE),
    // Compat: tun, though no node is made for it.
    (Kind::Char, Some(10), Some(200), MKNOD | READ | WRITE),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::{assert_sentence, number, text};
    use proptest::array::uniform2;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        DeviceRule {
            allow,
            kind: kind.into(),
            major: (major >= 0).then_some(major),
            minor: (minor >= 0).then_some(minor),
            access: access.into(),
        }
    }

    /// Runs the program as the kernel would.
    fn answers(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u32; 11];
        let mut at = 0_usize;
        loop {
            let bytes = program[at].to_le_bytes();
            at += 1;
            let (to, from) = (usize::from(bytes[1] & 15), usize::from(bytes[1] >> 4));
            let offset = usize::try_from(i16::from_le_bytes([bytes[2], bytes[3]])).unwrap();
            let imm = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            match bytes[0] {
                LOAD_WORD => registers[to] = context[offset / 4],
                MOVE32 => registers[to] = registers[from],
                MOVE32_IMM => registers[to] = imm,
                AND32 => registers[to] &= imm,
                SHIFT_RIGHT32 => registers[to] >>= imm,
                JUMP_EQ if registers[to] == imm => at += offset,
                JUMP_NE | JUMP_NE32 if registers[to] != imm => at += offset,
                JUMP_EQ | JUMP_NE | JUMP_NE32 => {}
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn docker_rules_become_list_lines() {
        let policy = DevicePolicy::new(&[
            rule(false, "a", -1, -1, "rwm"),
            rule(true, "c", 1, 5, "rwm"),
            rule(true, "c", 10, 229, "rw"),
        ])
        .unwrap();
        let lines = policy.lines();
        assert_eq!(lines[0], ("devices.deny", "a".into()));
        assert!(lines.contains(&("devices.allow", "c 10:229 rw".into())));
        assert!(lines.contains(&("devices.allow", "c 136:* rwm".into())));
        assert_eq!(lines.iter().filter(|line| line.1.starts_with("c 1:5")).count(), 1);
    }

    #[test]
    fn privileged_rules_allow_all() {
        let policy =
            DevicePolicy::new(&[rule(false, "", -1, -1, "rwm"), rule(true, "a", -1, -1, "rwm")]);
        assert_eq!(policy.unwrap().lines(), [("devices.allow", "a".to_owned())]);
    }

    #[test]
    fn the_program_answers_as_the_rules_read() {
        let policy = DevicePolicy::new(&[
            rule(false, "a", -1, -1, "rwm"),
            rule(true, "b", 8, -1, "r"),
            rule(true, "c", 10, 229, "rwm"),
            rule(false, "c", 10, 229, "w"),
        ])
        .unwrap();
        let program = policy.program();
        let (block, char) = (1, 2);
        assert!(answers(&program, block, 2, 8, 77));
        assert!(!answers(&program, block, 4, 8, 77));
        assert!(!answers(&program, block, 6, 8, 77));
        assert!(!answers(&program, block, 2, 9, 77));
        assert!(answers(&program, block, 1, 9, 77), "any node may be made");
        assert!(answers(&program, char, 3, 10, 229));
        assert!(!answers(&program, char, 4, 10, 229));
        assert!(answers(&program, char, 6, 1, 3));
    }

    #[test]
    fn an_open_default_forbids_by_exception() {
        let policy = DevicePolicy::new(&[
            rule(true, "a", -1, -1, "rwm"),
            rule(false, "b", 8, 0, "w"),
            rule(false, "c", 0xffff_ffff, 0, "rwm"),
        ])
        .unwrap();
        let program = policy.program();
        assert!(answers(&program, 1, 2, 8, 0));
        assert!(!answers(&program, 1, 6, 8, 0));
        assert!(!answers(&program, 2, 2, u32::MAX, 0));
        assert!(answers(&program, 2, 2, 7, 0));
    }

    #[test]
    fn wrong_words_are_named() {
        let error = |rule| DevicePolicy::new(&[rule]).unwrap_err();
        assert_eq!(error(rule(true, "x", 1, 1, "r")), DeviceRuleError::Kind("x".into()));
        assert_eq!(error(rule(true, "c", 1, 1, "q")), DeviceRuleError::Access("q".into()));
        assert!(DevicePolicy::new(&[rule(true, "c", 1, 1, "rq")]).is_ok());
    }

    /// What the lines for v1 come to: a default, and what is excepted from it.
    fn allowed(lines: &[(&str, String)], kind: char, access: u8, numbers: (u32, u32)) -> bool {
        let by_default = lines[0].0 == "devices.allow";
        let fits = |pattern: &str, number: u32| pattern == "*" || pattern == number.to_string();
        let found = lines[1..].iter().filter(|(_, line)| {
            let (device, letters) = line.rsplit_once(' ').unwrap();
            let (major, minor) = device[2..].split_once(':').unwrap();
            let bits = [('m', MKNOD), ('r', READ), ('w', WRITE)];
            let has = bits
                .iter()
                .filter(|(letter, _)| letters.contains(*letter))
                .fold(0, |all, (_, bit)| all | bit);
            let enough = if by_default { has & access != 0 } else { has & access == access };
            device.starts_with(kind) && fits(major, numbers.0) && fits(minor, numbers.1) && enough
        });
        (found.count() > 0) != by_default
    }

    prop_compose! {
        /// A rule as it should be, of any device or of some.
        fn valid()(
            allow: bool, kind in select(&["a", "", "b", "c", "u"]), access in select(&["rwm", "", "r", "wm", "rq"]),
            numbers in uniform2(select(&[None, Some(-1), Some(1), Some(3), Some(0xffff_ffff)])),
        ) -> DeviceRule {
            DeviceRule { allow, kind: kind.into(), major: numbers[0], minor: numbers[1], access: access.into() }
        }
    }

    prop_compose! {
        fn any_rule()(
            allow: bool, kind in select(&["a", "b", "c", "p", "x", "é"]), access in text(&["r", "w", "m", "x", "\n"], 4),
            numbers in uniform2(number().prop_map(|number| Some(number.cast_signed()))),
        ) -> DeviceRule {
            DeviceRule { allow, kind: kind.into(), major: numbers[0], minor: numbers[1], access }
        }
    }

    /// Letter and number of a kind, what is wanted of a device, and which.
    fn opening() -> impl Strategy<Value = ((char, u32), u8, (u32, u32))> {
        let numbers = (select(&[0, 1, 3, 5, 136, u32::MAX]), select(&[0, 1, 3, 5, u32::MAX]));
        (select(&[('b', 1), ('c', 2)]), select(&[MKNOD, READ, WRITE, READ | WRITE]), numbers)
    }

    proptest! {
        #[test]
        fn both_hierarchies_are_told_the_same(rules in vec(valid(), 0..=6), openings in vec(opening(), 1..=30)) {
            let policy = DevicePolicy::new(&rules).unwrap();
            let (program, lines) = (policy.program(), policy.lines());
            for ((letter, kind), access, numbers) in openings {
                let answer = answers(&program, kind, u32::from(access), numbers.0, numbers.1);
                prop_assert_eq!(answer, allowed(&lines, letter, access, numbers), "{} {} {:?}", letter, access, numbers);
            }
        }

        #[test]
        fn a_rule_is_refused_or_has_numbers_of_the_kernels(rule in any_rule()) {
            match DevicePolicy::new(std::slice::from_ref(&rule)) {
                Ok(policy) => prop_assert!(policy.lines().iter().all(|(_, line)| !line.contains('\n'))),
                Err(error) => assert_sentence(&error.to_string()),
            }
        }
    }
}
