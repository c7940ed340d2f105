//! What a profile says about each number of one architecture.
//!
//! Precedence is libseccomp's: a name without conditions decides its call for good, whatever
//! conditions stand beside it; the first such entry wins. Entries that repeat the default action
//! are skipped. Conditional entries are tried in the profile's order.
//! Numbers above the newest call a profile names answer ENOSYS, as runc makes them, so that a
//! program probing for a newer call finds it absent rather than forbidden.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::arch::{ARM_PRIVATE, Arch, X32_BIT, multiplexed};
use super::table::{ABSENT, lookup};
use super::{Error, action};
use crate::spec::oci::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    Masked(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) index: u8,
    pub(super) compare: Compare,
    pub(super) value: u64,
}

/// All tests of one alternative hold: return `action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Shared by all calls that an entry names: a profile may name many, with many conditions.
    pub(super) alternatives: Alternatives,
    pub(super) wide: bool,
    pub(super) action: u32,
}

impl Rule {
    /// Its alternatives, the last one first.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Self, &[Test])> {
        self.alternatives.iter().rev().map(move |tests| (self, tests.as_slice()))
    }
}

pub(super) type Alternatives = Rc<Vec<Vec<Test>>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Return(u32),
    /// The first rule that holds; else the default action.
    Chain(Vec<Rule>),
}

/// Everything the profile says of one audit token: where a range starts and what holds in it.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) audit: u32,
    pub(super) ranges: Vec<(u32, Decision)>,
}

/// A profile after its names were checked.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) default: u32,
    pub(super) sections: Vec<Section>,
    pub(super) notifies: bool,
}

impl Policy {
    pub(super) fn new(profile: &LinuxSeccomp, native: Arch) -> Result<Self, Error> {
        let default = action(&profile.default_action, profile.default_errno_ret)?;
        if profile.default_action == "SCMP_ACT_NOTIFY" {
            return Err(Error::NotifyDefault);
        }
        let mut arches = BTreeSet::from([native]);
        for name in &profile.architectures {
            arches.extend(Arch::parse(name)?);
        }
        let entries = entries(profile, default)?;
        let newest_only = answers_enosys(profile);
        let mut by_audit: BTreeMap<u32, Vec<Arch>> = BTreeMap::new();
        for arch in arches {
            by_audit.entry(arch.audit()).or_default().push(arch);
        }
        let mut sections: Vec<Section> = by_audit
            .into_iter()
            .map(|(audit, arches)| {
                let mut ranges = BTreeMap::new();
                for arch in arches {
                    fill(&mut ranges, arch, profile, &entries, default, newest_only);
                }
                Section { audit, ranges: merge(ranges, default) }
            })
            .collect();
        // The native one is asked first.
        sections.sort_by_key(|section| section.audit != native.audit());
        let notifies = entries.iter().any(|entry| entry.action == super::USER_NOTIF);
        Ok(Self { default, sections, notifies })
    }
}

/// One `syscalls` element, checked; `alternatives` hold its conditions (empty: unconditional).
struct Entry<'a> {
    names: &'a [String],
    action: u32,
    alternatives: Alternatives,
}

fn entries(profile: &LinuxSeccomp, default: u32) -> Result<Vec<Entry<'_>>, Error> {
    let mut entries = Vec::new();
    for syscall in &profile.syscalls {
        let action = action(&syscall.action, syscall.errno_ret)?;
        if action == super::USER_NOTIF && syscall.names.iter().any(|name| name == "write") {
            return Err(Error::NotifyWrite);
        }
        let alternatives = Rc::new(alternatives(syscall)?);
        if action != default {
            entries.push(Entry { names: &syscall.names, action, alternatives });
        }
    }
    Ok(entries)
}

/// Conditions on different arguments hold together.
/// Compat: where an argument is named twice, runc makes one rule of each condition.
fn alternatives(syscall: &LinuxSyscall) -> Result<Vec<Vec<Test>>, Error> {
    let tests = syscall.args.iter().map(test).collect::<Result<Vec<_>, _>>()?;
    let distinct: BTreeSet<u8> = tests.iter().map(|test| test.index).collect();
    Ok(if tests.is_empty() {
        Vec::new()
    } else if distinct.len() == tests.len() {
        vec![tests]
    } else {
        tests.into_iter().map(|test| vec![test]).collect()
    })
}

fn test(arg: &LinuxSeccompArg) -> Result<Test, Error> {
    let compare = match arg.op.as_str() {
        "SCMP_CMP_NE" => Compare::Ne,
        "SCMP_CMP_LT" => Compare::Lt,
        "SCMP_CMP_LE" => Compare::Le,
        "SCMP_CMP_EQ" => Compare::Eq,
        "SCMP_CMP_GE" => Compare::Ge,
        "SCMP_CMP_GT" => Compare::Gt,
        "SCMP_CMP_MASKED_EQ" => Compare::Masked(arg.value),
        other => return Err(Error::UnknownOperator(other.to_owned())),
    };
    let value = match compare {
        Compare::Masked(mask) => arg.value_two & mask,
        _ => arg.value,
    };
    let index = u8::try_from(arg.index).ok().filter(|index| *index < 6);
    Ok(Test { index: index.ok_or(Error::ArgumentIndex(arg.index))?, compare, value })
}

/// Whether calls newer than the profile answer ENOSYS: not where the default lets calls through
/// or says ENOSYS itself.
fn answers_enosys(profile: &LinuxSeccomp) -> bool {
    let permissive = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
    !permissive.contains(&profile.default_action.as_str())
        && profile.default_errno_ret != Some(super::ENOSYS)
}

fn fill(
    ranges: &mut BTreeMap<u32, Decision>,
    arch: Arch,
    profile: &LinuxSeccomp,
    entries: &[Entry<'_>],
    default: u32,
    newest_only: bool,
) {
    let base = arch.number_base();
    let number =
        |name: &str| lookup(name).map(|row| row[arch.column()]).filter(|number| *number != ABSENT);
    let mut calls: BTreeMap<u32, Decision> = BTreeMap::new();
    let mut add = |number: u32, alternatives: &Alternatives, action: u32| {
        let decision = calls.entry(number).or_insert_with(|| Decision::Chain(Vec::new()));
        match decision {
            Decision::Return(_) => {}
            slot if alternatives.is_empty() => *slot = Decision::Return(action),
            Decision::Chain(rules) => {
                let alternatives = Rc::clone(alternatives);
                rules.push(Rule { alternatives, wide: arch.is_64_bit(), action });
            }
        }
    };
    for entry in entries {
        for name in entry.names {
            if let Some(number) = number(name) {
                add(number, &entry.alternatives, entry.action);
            }
            if arch == Arch::X86
                && entry.alternatives.is_empty()
                && let Some((by, sub)) = multiplexed(name)
                && let Some(number) = number(by)
            {
                let test = Test { index: 0, compare: Compare::Eq, value: u64::from(sub) };
                add(number, &Rc::new(vec![vec![test]]), entry.action);
            }
        }
    }
    let names = profile.syscalls.iter().flat_map(|syscall| &syscall.names);
    let newest = names.filter_map(|name| number(name)).filter(|n| *n < ARM_PRIVATE).max();
    let newest = newest.filter(|_| newest_only);
    let gap = |number: u32| match newest {
        Some(newest) if number > newest => Decision::Return(super::ERRNO | super::ENOSYS),
        _ => Decision::Return(default),
    };
    ranges.insert(base, gap(0));
    if let Some(newest) = newest {
        ranges.insert(base + newest + 1, gap(newest + 1));
    } else if arch == Arch::X86_64 {
        // Without x32 in the profile its numbers are a foreign architecture's; -1 is a tracer's.
        ranges.insert(X32_BIT, Decision::Return(super::KILL_THREAD));
        ranges.insert(u32::MAX, Decision::Return(default));
    }
    for (number, decision) in calls {
        ranges.insert(base + number, decision);
        ranges.entry(base + number + 1).or_insert_with(|| gap(number + 1));
    }
}

/// Neighbours that decide alike become one range; the first starts at 0.
fn merge(ranges: BTreeMap<u32, Decision>, default: u32) -> Vec<(u32, Decision)> {
    let mut merged: Vec<(u32, Decision)> = vec![(0, Decision::Return(default))];
    for (start, decision) in ranges {
        match merged.last_mut() {
            Some((at, last)) if *at == start => *last = decision,
            Some((_, last)) if *last == decision => {}
            _ => merged.push((start, decision)),
        }
    }
    merged.dedup_by(|next, kept| next.1 == kept.1);
    merged
}
