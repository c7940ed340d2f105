//! `budgets.toml`: what each measure may cost, as a part of what a peer took in the same run, or as it
//! is. No budget fails the bench.

use std::fs;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::samples::{Samples, Side, Summary};

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
    /// The peer; stock unless said.
    against: Option<String>,
    /// What is held to the ratio, each on its own: the median unless said.
    #[serde(default = "median")]
    by: Vec<Figure>,
    /// At most this part of the peer's.
    ratio: Option<f64>,
    aim: Option<f64>,
    /// At most this many KiB.
    kib: Option<f64>,
    /// At most this often.
    count: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Figure {
    Median,
    Minimum,
    Cpu,
}

fn median() -> Vec<Figure> {
    vec![Figure::Median]
}

/// A line a budget whose measure was taken.
pub(crate) fn judge(samples: &Samples) -> anyhow::Result<Vec<String>> {
    let path = crate::top().join("integration-tests/budgets.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let budgets: Budgets = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut lines = Vec::new();
    for budget in budgets.budget {
        let Some(ours) = samples.summary(&budget.measure, Side::Ours) else { continue };
        let peer = budget.peer()?;
        let theirs = samples.summary(&budget.measure, peer);
        lines.push(budget.line(ours, theirs, peer));
    }
    Ok(lines)
}

impl Budget {
    fn peer(&self) -> anyhow::Result<Side> {
        let name = self.against.as_deref().unwrap_or("stock");
        let side = Side::ALL.into_iter().find(|side| side.name() == name);
        let Some(side) = side else { bail!("budgets.toml: {}: nobody is {name}", self.what) };
        Ok(side)
    }

    fn line(&self, ours: Summary, theirs: Option<Summary>, peer: Side) -> String {
        let mut told = Vec::new();
        let mut met = true;
        let mut aimed = true;
        if self.ratio.or(self.aim).is_some() {
            for figure in &self.by {
                // What a peer was not asked for it does not lose.
                let ratio = theirs
                    .and_then(|theirs| figure.of(ours).zip(figure.of(theirs)))
                    .map_or(f64::NAN, |(ours, theirs)| ours / theirs);
                met &= self.ratio.is_none_or(|limit| ratio <= limit);
                aimed &= self.aim.is_none_or(|limit| ratio <= limit);
                told.push(format!("{} {ratio:.3} of {}", figure.name(), peer.name()));
            }
            told.extend(self.ratio.map(|limit| format!("budget {limit:.3}")));
        }
        for (limit, unit) in [(self.kib, "KiB"), (self.count, "times")] {
            let Some(limit) = limit else { continue };
            met &= ours.median <= limit;
            told.push(format!("{:.0} {unit}, budget {limit:.0}", ours.median));
        }
        if let Some(aim) = self.aim {
            told.push(format!("aim {aim:.3} {}", if aimed { "reached" } else { "not reached" }));
        }
        let verdict = match (met, self.ratio.or(self.kib).or(self.count)) {
            (_, None) => "AIM",
            (true, _) => "MET",
            (false, _) => "NOT MET",
        };
        format!("{verdict:<8} {}: {}", self.what, told.join(", "))
    }
}

impl Figure {
    fn of(self, summary: Summary) -> Option<f64> {
        match self {
            Self::Median => Some(summary.median),
            Self::Minimum => Some(summary.minimum),
            Self::Cpu => summary.cpu,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::Minimum => "minimum",
            Self::Cpu => "CPU",
        }
    }
}
