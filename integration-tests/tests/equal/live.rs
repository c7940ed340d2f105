//! Both stacks in one run on one host: the same containers, field by field, nothing left out.

use std::fmt::Write as _;

use integration_tests::Stack;

use crate::cases::{self, Case, Need};
use crate::facts::Facts;
use crate::known;
use crate::portable::Host;
use crate::world::World;

/// Runs the containers of a group on both sides at once and compares.
pub(crate) fn group(name: &str) {
    let cases = cases::group(name);
    let side = |ours: bool| {
        let world = World::start(if ours { Stack::ours() } else { Stack::stock() });
        let host = Host::of(&world);
        let can = cases.iter().filter(|case| match case.needs {
            Some(Need::AllCapabilities) => host.can(case),
            _ => true,
        });
        let facts: Vec<(&Case, Facts)> = can.map(|case| (case, world.look(case))).collect();
        world.end();
        facts
    };
    let (stock, ours) = std::thread::scope(|scope| {
        let stock = scope.spawn(|| side(false));
        let ours = side(true);
        (stock.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), ours)
    });
    let mut report = String::new();
    for ((case, stock), (_, ours)) in stock.iter().zip(&ours) {
        let differences = Facts::differences(stock, ours);
        let (left, stale) = known::unknown(case.name, differences);
        for difference in left {
            let _ = writeln!(report, "{}: {difference}", case.name);
        }
        for entry in stale {
            let _ = writeln!(report, "{}: known, but no longer so: {entry}", case.name);
        }
    }
    assert!(report.is_empty(), "{report}");
}
