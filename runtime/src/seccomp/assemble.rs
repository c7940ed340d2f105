//! From decisions to classic BPF (`linux/filter.h`), written back to front: every jump goes
//! forward, so its target is always there already.
//!
//! The numbers are searched as a binary tree: the kernel tries a new filter on every number to
//! learn which ones always pass, and a list costs it several times as much as a tree.

use super::arch::Arch;
use super::policy::{Compare, Decision, Policy, Rule, Section, Test};
use super::{Error, KILL_THREAD};

/// A position in the finished program, counted from its end.
type Label = usize;

#[derive(Default)]
struct Assembler {
    /// In reverse order.
    reversed: Vec<libc::sock_filter>,
    /// Return instructions already there: value and latest position.
    returns: Vec<(u32, Label)>,
}

pub(super) fn assemble(policy: &Policy) -> Result<Vec<libc::sock_filter>, Error> {
    let mut out = Assembler::default();
    let mut next = out.ret(KILL_THREAD);
    for section in policy.sections.iter().rev() {
        let body = out.section(section, policy.default);
        next = out.jump_if(JEQ, section.audit, body, next);
    }
    out.load(OFFSET_ARCH);
    let mut instructions = out.reversed;
    instructions.reverse();
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong(instructions.len()));
    }
    Ok(instructions)
}

impl Assembler {
    fn section(&mut self, section: &Section, default: u32) -> Label {
        let root = self.tree(&section.ranges, default);
        if root + 1 != self.reversed.len() {
            // A single answer that stands further down: a load must be followed by its user.
            let gap = self.reversed.len() - root;
            self.push(JA, u32::try_from(gap - 1).unwrap_or(u32::MAX));
        }
        self.load(OFFSET_NUMBER)
    }

    /// The number is in the accumulator and not below the first range's start.
    fn tree(&mut self, ranges: &[(u32, Decision)], default: u32) -> Label {
        let (left, right) = ranges.split_at(ranges.len() / 2);
        match (left, right) {
            ([], [(_, Decision::Return(value))]) => self.ret(*value),
            ([], [(_, Decision::Chain(rules))]) => self.chain(rules, default),
            (_, [(pivot, _), ..]) => {
                let high = self.tree(right, default);
                let low = self.tree(left, default);
                self.jump_if(JGE, *pivot, high, low)
            }
            (_, []) => self.ret(default),
        }
    }

    fn chain(&mut self, rules: &[Rule], default: u32) -> Label {
        let mut next = self.ret(default);
        for (rule, tests) in rules.iter().rev().flat_map(Rule::each) {
            // Too long already: the rest would only take memory.
            if self.reversed.len() > MAX_INSTRUCTIONS {
                break;
            }
            let mut hit = self.ret(rule.action);
            for test in tests.iter().rev() {
                hit = self.test(*test, rule.wide, hit, next);
            }
            next = hit;
        }
        next
    }

    fn test(&mut self, test: Test, wide: bool, hit: Label, miss: Label) -> Label {
        let low = half(test.value);
        let high = half(test.value >> 32);
        let offset = OFFSET_ARGS + 8 * u32::from(test.index);
        let mask = match test.compare {
            Compare::Masked(mask) => Some((half(mask >> 32), half(mask))),
            _ => None,
        };
        let (jump, on_true, on_false) = match test.compare {
            Compare::Eq | Compare::Masked(_) => (JEQ, hit, miss),
            Compare::Ne => (JEQ, miss, hit),
            Compare::Gt => (JGT, hit, miss),
            Compare::Le => (JGT, miss, hit),
            Compare::Ge => (JGE, hit, miss),
            Compare::Lt => (JGE, miss, hit),
        };
        self.jump_if(jump, low, on_true, on_false);
        if let Some((_, mask)) = mask {
            self.push(AND, mask);
        }
        let label = self.load(offset);
        if !wide {
            return label;
        }
        // The upper half: equal means the lower one decides.
        match test.compare {
            Compare::Eq | Compare::Ne | Compare::Masked(_) => {
                self.jump_if(JEQ, high, label, on_false);
            }
            _ => {
                let unequal = self.jump_if(JGT, high, on_true, on_false);
                self.jump_if(JEQ, high, label, unequal);
            }
        }
        if let Some((mask, _)) = mask {
            self.push(AND, mask);
        }
        self.load(offset + 4)
    }

    fn load(&mut self, offset: u32) -> Label {
        self.push(LOAD, offset)
    }

    /// A return of `value` near enough to be jumped to from here.
    fn ret(&mut self, value: u32) -> Label {
        let here = self.reversed.len();
        if let Some((_, at)) = self.returns.iter().find(|(known, _)| *known == value)
            && here - at < NEAR
        {
            return *at;
        }
        let at = self.push(RET, value);
        self.returns.retain(|(known, _)| *known != value);
        self.returns.push((value, at));
        at
    }

    fn jump_if(&mut self, code: u16, k: u32, on_true: Label, on_false: Label) -> Label {
        let on_true = self.reachable(on_true);
        let on_false = self.reachable(on_false);
        // `on_true` may have been passed by one more instruction: NEAR leaves room for it.
        let jt = self.distance(on_true);
        let jf = self.distance(on_false);
        self.reversed.push(libc::sock_filter { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// `target`, or a long jump to it where a conditional one would not reach.
    fn reachable(&mut self, target: Label) -> Label {
        let gap = self.reversed.len() - target;
        if gap < NEAR + 8 {
            return target;
        }
        self.push(JA, u32::try_from(gap - 1).unwrap_or(u32::MAX))
    }

    fn distance(&self, target: Label) -> u8 {
        u8::try_from(self.reversed.len() - target - 1).expect("reachable() keeps targets near")
    }

    fn push(&mut self, code: u16, k: u32) -> Label {
        self.reversed.push(libc::sock_filter { code, jt: 0, jf: 0, k });
        self.reversed.len() - 1
    }
}

fn half(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).expect("masked to 32 bits")
}

/// The kernel's `BPF_MAXINSNS`.
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

/// Within a conditional jump's reach, with room for what is emitted between.
const NEAR: usize = 240;

/// Offsets in `struct seccomp_data`; the halves of an argument are little-endian, as every
/// architecture of [`Arch`] is.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;
const _: () = assert!(cfg!(target_endian = "little") && Arch::ALL.len() == 5);

/// BPF_LD | BPF_W | BPF_ABS
const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K
const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA
const JA: u16 = 0x05;
/// BPF_JMP | BPF_JEQ | BPF_K
const JEQ: u16 = 0x15;
/// BPF_JMP | BPF_JGT | BPF_K
const JGT: u16 = 0x25;
/// BPF_JMP | BPF_JGE | BPF_K
const JGE: u16 = 0x35;
/// BPF_RET | BPF_K
const RET: u16 = 0x06;
