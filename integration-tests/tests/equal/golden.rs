//! Values of stock, recorded once, and our containers judged by them on any host.
//!
//! Of what depends on the host a golden file holds a word instead (`the host's`), or nothing. What
//! depends on the cgroup layout is in files of its own, `cgroup-v1/` and `cgroup-v2/`: where one is
//! missing, that part is judged by `live` alone.
//!
//! `default.txt` has all fields of a container for which nothing was asked; the others have per case
//! only what the request changed. `ENGINE=stock GOLDEN=record` writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use integration_tests::Stack;

use crate::cases::{self, Case};
use crate::facts::{Difference, Facts, escape, unescape};
use crate::known;
use crate::portable::Host;
use crate::world::World;

type Changes = BTreeMap<String, Option<String>>;

/// One golden file: per case what it changes.
#[derive(Default)]
struct File(BTreeMap<String, Changes>);

/// The two parts of a container's facts, each in a file of its own.
struct Parts {
    plain: Facts,
    cgroup: Facts,
}

fn path(host: &Host, part: &str, group: &str) -> PathBuf {
    let below =
        if part == "cgroup" { format!("{}/{group}", host.layout()) } else { group.to_owned() };
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/equal/{below}.txt"))
}

fn parts(host: &Host, facts: Facts) -> Parts {
    let (mut plain, mut cgroup) = (host.portable(facts), Facts::default());
    plain.retain(|field, value| {
        let apart = Host::depends_on_layout(field);
        if apart {
            cgroup.set(field, value);
        }
        !apart
    });
    Parts { plain, cgroup }
}

/// Runs the containers of a group and judges them by the golden files, or writes these.
pub(crate) fn group(name: &str) {
    let world = World::start(Stack::from_environment());
    let host = Host::of(&world);
    let mut cases = cases::group(name);
    cases.retain(Case::is_recorded);
    match std::env::var("GOLDEN").as_deref() {
        Ok("record") => record(&world, &host, name, &cases),
        Ok(other) => panic!("GOLDEN={other}: `record` or nothing"),
        Err(_) => judge(&world, &host, name, &cases),
    }
    world.end();
}

fn judge(world: &World, host: &Host, group: &str, cases: &[Case]) {
    let plain = File::read(&path(host, "plain", "default")).expect("a golden file");
    let base = plain.apply(&Facts::default(), "default");
    let plain = File::read(&path(host, "plain", group)).expect("a golden file");
    let cgroup = File::read(&path(host, "cgroup", "default"))
        .zip(File::read(&path(host, "cgroup", group)))
        .map(|(base, own)| (base.apply(&Facts::default(), "default"), own));
    let mut report = String::new();
    let mut judged = 0;
    for case in cases.iter().filter(|case| host.can(case)) {
        let parts = parts(host, world.look(case));
        let expected = plain.apply(&base, case.name);
        let mut differences = Facts::differences(&expected, &parts.plain);
        if let Some((base, own)) = &cgroup {
            let mut expected = own.apply(base, case.name);
            let mut got = parts.cgroup;
            // Which files a controller has is the kernel's business.
            expected.retain(|field, _| !Host::is_controllers(field) || got.get(field).is_some());
            got.retain(|field, _| !Host::is_controllers(field) || expected.get(field).is_some());
            differences.extend(Facts::differences(&expected, &got));
        }
        differences.retain(|difference| host.judges(difference));
        judged += 1;
        tell(&mut report, world, case.name, differences);
    }
    assert!(judged > 0, "the host can do none of them");
    assert!(report.is_empty(), "{report}");
}

/// Over stock there is nothing to excuse.
fn tell(report: &mut String, world: &World, case: &str, differences: Vec<Difference>) {
    let left =
        if world.stack.is_stock() { differences } else { known::unknown(case, differences).0 };
    for difference in left {
        let _ = writeln!(report, "{case}: {difference}");
    }
}

fn record(world: &World, host: &Host, group: &str, cases: &[Case]) {
    assert!(world.stack.is_stock(), "golden values are upstream's: ENGINE=stock");
    let empty = || Parts { plain: Facts::default(), cgroup: Facts::default() };
    let base = if group == "default" {
        empty()
    } else {
        parts(host, world.look(&cases::group("default")[0]))
    };
    let (mut plain, mut cgroup) = (File::default(), File::default());
    for case in cases {
        assert!(host.can(case), "{}: this host cannot, so it cannot record it", case.name);
        let own = parts(host, world.look(case));
        plain.0.insert(case.name.to_owned(), changes(&base.plain, &own.plain));
        cgroup.0.insert(case.name.to_owned(), changes(&base.cgroup, &own.cgroup));
    }
    plain.write(&path(host, "plain", group));
    cgroup.write(&path(host, "cgroup", group));
}

fn changes(base: &Facts, own: &Facts) -> Changes {
    let differences = Facts::differences(base, own);
    differences.into_iter().map(|difference| (difference.field, difference.ours)).collect()
}

impl File {
    fn read(path: &PathBuf) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut file = Self::default();
        let mut case = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix("== ") {
                name.clone_into(&mut case);
                file.0.entry(case.clone()).or_default();
                continue;
            }
            let changes = file.0.get_mut(&case).expect("a line of a case");
            match line.split_once(" = ") {
                Some((field, value)) => changes.insert(field.to_owned(), Some(unescape(value))),
                None => changes.insert(line.trim_start_matches("without ").to_owned(), None),
            };
        }
        Some(file)
    }

    fn write(&self, path: &PathBuf) {
        let mut text = String::new();
        for (case, changes) in &self.0 {
            let _ = writeln!(text, "== {case}");
            for (field, value) in changes {
                let _ = match value {
                    Some(value) => writeln!(text, "{field} = {}", escape(value)),
                    None => writeln!(text, "without {field}"),
                };
            }
            text.push('\n');
        }
        fs::create_dir_all(path.parent().expect("a directory")).expect("the golden directory");
        fs::write(path, text.trim_end().to_owned() + "\n").expect("a golden file");
    }

    fn apply(&self, base: &Facts, case: &str) -> Facts {
        let changes = self.0.get(case).unwrap_or_else(|| panic!("no golden values of {case:?}"));
        let mut facts = base.clone();
        facts.retain(|field, _| !changes.contains_key(field));
        for (field, value) in changes {
            if let Some(value) = value {
                facts.set(field, value);
            }
        }
        facts
    }
}
