//! The shares of a group and what is counted in it, in the shape of runc's `events --stats`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Group, Resctrl};
use crate::sys::{errno_of, errno_text, file};

/// Compat: runc's sentences.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatsError {
    #[error("open {}: {}", path.display(), errno_text(errno_of(cause)))]
    Read { path: PathBuf, cause: io::Error },
    #[error("unable to parse {text:?} as a uint from file {path:?}")]
    Number { path: PathBuf, text: String },
}

impl Group {
    pub(crate) fn stats(&self, resctrl: &Resctrl) -> Result<Value, StatsError> {
        let root = resctrl.0.as_path();
        let (all, own) = (text(&root.join("schemata"))?, text(&self.path.join("schemata"))?);
        let mut told = Map::new();
        told.insert("schemata".to_owned(), own.split('\n').collect());
        if resctrl.has_cache() {
            let info = root.join("info/L3");
            let mut fields = numbers(&info, &["min_cbm_bits", "num_closids"])?;
            insert_text(&mut fields, "cbm_mask", &text(&info.join("cbm_mask"))?);
            told.insert("l3_cache_info".to_owned(), fields.into());
            insert_text(&mut told, "l3_cache_schema_root", line(&all, "L3"));
            insert_text(&mut told, "l3_cache_schema", line(&own, "L3"));
        }
        if resctrl.has_bandwidth() {
            const FIELDS: [&str; 4] =
                ["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"];
            told.insert("mem_bw_info".to_owned(), numbers(&root.join("info/MB"), &FIELDS)?.into());
            insert_text(&mut told, "mem_bw_schema_root", line(&all, "MB"));
            insert_text(&mut told, "mem_bw_schema", line(&own, "MB"));
        }
        let features = text(&root.join("info/L3_MON/mon_features")).unwrap_or_default();
        let has = |name: &str| features.lines().any(|feature| feature == name);
        let data = self.monitor.as_ref().unwrap_or(&self.path).join("mon_data");
        for (name, counters) in COUNTERS {
            if counters.iter().any(|counter| has(counter)) {
                told.insert((*name).to_owned(), counts(&data, counters, &has)?);
            }
        }
        Ok(told.into())
    }
}

const COUNTERS: [(&str, &[&str]); 2] =
    [("mbm_stats", &["mbm_total_bytes", "mbm_local_bytes"]), ("cmt_stats", &["llc_occupancy"])];

/// Of each domain of the cache; zero stands where the hardware does not count. Compat: none is no list.
fn counts(data: &Path, names: &[&str], has: &dyn Fn(&str) -> bool) -> Result<Value, StatsError> {
    let failed = |cause| StatsError::Read { path: data.to_owned(), cause };
    let mut domains = Vec::new();
    for entry in fs::read_dir(data).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // What else is measured has other counters.
        if name.as_encoded_bytes().starts_with(b"mon_L3_") {
            domains.push(data.join(name));
        }
    }
    domains.sort();
    let told = |domain: &PathBuf| {
        let count = |name: &&str| {
            let count = if has(name) { number(&domain.join(name))? } else { 0 };
            Ok(((*name).to_owned(), json!(count)))
        };
        names.iter().map(count).collect::<Result<Map<_, _>, StatsError>>()
    };
    let domains = domains.iter().map(told).collect::<Result<Vec<_>, _>>()?;
    Ok(if domains.is_empty() { Value::Null } else { domains.into() })
}

/// Compat: Go leaves out what is zero, or empty.
fn numbers(directory: &Path, names: &[&str]) -> Result<Map<String, Value>, StatsError> {
    let mut fields = Map::new();
    for name in names {
        let number = number(&directory.join(name))?;
        if number != 0 {
            fields.insert((*name).to_owned(), number.into());
        }
    }
    Ok(fields)
}

fn insert_text(fields: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        fields.insert(name.to_owned(), text.into());
    }
}

/// The last one of a schemata file that tells of a resource.
fn line<'a>(schemata: &'a str, resource: &str) -> &'a str {
    schemata.lines().rfind(|line| line.contains(resource)).unwrap_or_default().trim()
}

fn text(path: &Path) -> Result<String, StatsError> {
    let text =
        file::read_text(path).map_err(|cause| StatsError::Read { path: path.to_owned(), cause })?;
    Ok(text.trim().to_owned())
}

fn number(path: &Path) -> Result<u64, StatsError> {
    let text = text(path)?;
    text.parse().map_err(|_| StatsError::Number { path: path.to_owned(), text })
}
