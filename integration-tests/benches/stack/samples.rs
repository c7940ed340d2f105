//! What was measured: every sample is kept, the table shows medians, minima and the ninetieth
//! percentile.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::stack::Kind;

/// One round of one measure: milliseconds, or KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// CPU milliseconds of the whole stack until it was quiet.
    pub(crate) cpu: Option<f64>,
}

#[derive(Debug, Default)]
pub(crate) struct Samples {
    order: Vec<(String, String)>,
    taken: BTreeMap<(String, Kind), Vec<Sample>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) median: f64,
    pub(crate) minimum: f64,
    pub(crate) ninetieth: f64,
    pub(crate) cpu: Option<f64>,
}

impl Samples {
    pub(crate) fn add(&mut self, section: &str, measure: &str, kind: Kind, sample: Sample) {
        let entry = (section.to_owned(), measure.to_owned());
        if !self.order.contains(&entry) {
            self.order.push(entry);
        }
        self.taken.entry((measure.to_owned(), kind)).or_default().push(sample);
    }

    pub(crate) fn summary(&self, measure: &str, kind: Kind) -> Option<Summary> {
        let samples = self.taken.get(&(measure.to_owned(), kind))?;
        let values = sorted(samples.iter().map(|sample| sample.value));
        let cpu = sorted(samples.iter().filter_map(|sample| sample.cpu));
        Some(Summary {
            count: values.len(),
            median: *values.get(values.len() / 2)?,
            minimum: *values.first()?,
            ninetieth: *values.get(values.len() * 9 / 10)?,
            cpu: cpu.get(cpu.len() / 2).copied(),
        })
    }

    /// The lines people read.
    pub(crate) fn table(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<22} {:<6} {:>4} {:>10} {:>10} {:>10} {:>10}   ratio of median, minimum, CPU",
            "measure", "stack", "n", "median", "minimum", "p90", "CPU ms"
        )];
        for (_, measure) in &self.order {
            let stock = self.summary(measure, Kind::Stock);
            for kind in [Kind::Ours, Kind::Stock] {
                let Some(this) = self.summary(measure, kind) else { continue };
                let mut line = format!(
                    "{measure:<22} {:<6} {:>4} {:>10.2} {:>10.2} {:>10.2} {:>10}",
                    kind.name(),
                    this.count,
                    this.median,
                    this.minimum,
                    this.ninetieth,
                    this.cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}")),
                );
                if let (Kind::Ours, Some(stock)) = (kind, stock) {
                    let cpu = this.cpu.zip(stock.cpu).map(|(ours, stock)| ours / stock);
                    let cpu = cpu.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
                    let median = this.median / stock.median;
                    let minimum = this.minimum / stock.minimum;
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
                .or_insert_with(|| "measure,stack,round,value,cpu_ms\n".to_owned());
            for kind in [Kind::Ours, Kind::Stock] {
                let samples = self.taken.get(&(measure.clone(), kind));
                for (round, sample) in samples.into_iter().flatten().enumerate() {
                    let cpu = sample.cpu.map_or_else(String::new, |cpu| format!("{cpu:.3}"));
                    writeln!(text, "{measure},{},{round},{:.3},{cpu}", kind.name(), sample.value)?;
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
