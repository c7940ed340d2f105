//! `budgets.toml`: what each measure may cost, as a ratio to stock or in KiB. No budget fails the
//! bench yet.

use std::fs;

use anyhow::Context;
use serde::Deserialize;

use crate::samples::Samples;
use crate::stack::Kind;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budgets {
    budget: Vec<Budget>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    what: String,
    measure: String,
    /// At most this part of stock's median.
    ratio: Option<f64>,
    aim: Option<f64>,
    /// At most this many KiB.
    kib: Option<f64>,
}

/// A line a budget whose measure was taken.
pub(crate) fn judge(samples: &Samples) -> anyhow::Result<Vec<String>> {
    let path = crate::top().join("integration-tests/budgets.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let budgets: Budgets = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut lines = Vec::new();
    for budget in budgets.budget {
        let Some(ours) = samples.summary(&budget.measure, Kind::Ours) else { continue };
        let ratio = samples
            .summary(&budget.measure, Kind::Stock)
            .map_or(f64::NAN, |stock| ours.median / stock.median);
        let met = budget.ratio.is_none_or(|limit| ratio <= limit)
            && budget.kib.is_none_or(|limit| ours.median <= limit);
        let limit = match (budget.ratio, budget.kib) {
            (Some(limit), _) => format!("budget {limit:.3}"),
            (None, Some(kib)) => format!("{:.0} KiB, budget {kib:.0} KiB", ours.median),
            (None, None) => "no limit".to_owned(),
        };
        let aim = budget.aim.map_or_else(String::new, |aim| format!(", aim {aim:.3}"));
        lines.push(format!(
            "{:<8} {}: {ratio:.3} of stock ({limit}{aim})",
            if met { "MET" } else { "NOT MET" },
            budget.what,
        ));
    }
    Ok(lines)
}
