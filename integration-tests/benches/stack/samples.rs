//! What was measured: every sample is kept, the table shows medians, minima and the ninetieth
//! percentile.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// Whose sample it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Ours,
    Stock,
    Podman,
    Crun,
    Runc,
    /// What the kernel alone takes.
    Floor,
}

impl Side {
    pub(crate) const ALL: [Self; 6] =
        [Self::Ours, Self::Stock, Self::Podman, Self::Crun, Self::Runc, Self::Floor];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Stock => "stock",
            Self::Podman => "podman",
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Floor => "floor",
        }
    }
}

/// One round of one measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    value: f64,
    unit: &'static str,
    /// CPU milliseconds of everything that took part, until it was quiet.
    cpu: Option<f64>,
}

impl Sample {
    pub(crate) fn time(took: Duration) -> Self {
        Self { value: millis(took), unit: "ms", cpu: None }
    }

    pub(crate) fn kib(value: f64) -> Self {
        Self { value, unit: "KiB", cpu: None }
    }

    pub(crate) fn count(value: f64) -> Self {
        Self { value, unit: "", cpu: None }
    }

    pub(crate) fn with_cpu(self, cpu: Duration) -> Self {
        Self { cpu: Some(millis(cpu)), ..self }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Samples {
    order: Vec<(String, String)>,
    taken: BTreeMap<(String, Side), Vec<Sample>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    count: usize,
    unit: &'static str,
    pub(crate) median: f64,
    pub(crate) minimum: f64,
    ninetieth: f64,
    pub(crate) cpu: Option<f64>,
}

impl Samples {
    pub(crate) fn add(&mut self, section: &str, measure: &str, side: Side, sample: Sample) {
        let entry = (section.to_owned(), measure.to_owned());
        if !self.order.contains(&entry) {
            self.order.push(entry);
        }
        self.taken.entry((measure.to_owned(), side)).or_default().push(sample);
    }

    pub(crate) fn summary(&self, measure: &str, side: Side) -> Option<Summary> {
        let samples = self.taken.get(&(measure.to_owned(), side))?;
        let values = sorted(samples.iter().map(|sample| sample.value));
        let cpu = sorted(samples.iter().filter_map(|sample| sample.cpu));
        Some(Summary {
            count: values.len(),
            unit: samples.first()?.unit,
            median: *values.get(values.len() / 2)?,
            minimum: *values.first()?,
            ninetieth: *values.get(values.len() * 9 / 10)?,
            cpu: cpu.get(cpu.len() / 2).copied(),
        })
    }

    /// The lines people read.
    pub(crate) fn table(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<24} {:<6} {:>4} {:>10} {:>10} {:>10} {:<3} {:>10}   ours of it: median, minimum, CPU",
            "measure", "side", "n", "median", "minimum", "p90", "", "CPU ms"
        )];
        for (_, measure) in &self.order {
            let ours = self.summary(measure, Side::Ours);
            for side in Side::ALL {
                let Some(this) = self.summary(measure, side) else { continue };
                let mut line = format!(
                    "{measure:<24} {:<6} {:>4} {:>10.2} {:>10.2} {:>10.2} {:<3} {:>10}",
                    side.name(),
                    this.count,
                    this.median,
                    this.minimum,
                    this.ninetieth,
                    this.unit,
                    this.cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}")),
                );
                if let Some(ours) = ours.filter(|_| side != Side::Ours) {
                    let cpu = ours.cpu.zip(this.cpu).map(|(ours, this)| ours / this);
                    let cpu = cpu.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
                    let median = ours.median / this.median;
                    let minimum = ours.minimum / this.minimum;
                    line += &format!("   {median:.3} {minimum:.3} {cpu}");
                }
                lines.push(line);
            }
        }
        lines
    }

    /// One file a section.
    pub(crate) fn write_csv(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let mut files: BTreeMap<&str, String> = BTreeMap::new();
        for (section, measure) in &self.order {
            let text = files
                .entry(section)
                .or_insert_with(|| "measure,side,round,value,unit,cpu_ms\n".to_owned());
            for side in Side::ALL {
                let samples = self.taken.get(&(measure.clone(), side));
                for (round, Sample { value, unit, cpu }) in
                    samples.into_iter().flatten().enumerate()
                {
                    let cpu = cpu.map_or_else(String::new, |cpu| format!("{cpu:.3}"));
                    writeln!(text, "{measure},{},{round},{value:.3},{unit},{cpu}", side.name())?;
                }
            }
        }
        for (section, text) in files {
            let path = directory.join(format!("{section}.csv"));
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
