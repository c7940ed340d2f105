//! The mount that holds the stack's directory, which a bind of a file in there is a part of.

use std::collections::BTreeSet;
use std::fs;

use integration_tests::sandbox::Sandbox;

pub(crate) struct Holding {
    /// The stack's directory within the file system, as mountinfo shows it for a bind of it.
    pub(crate) root: String,
    options: String,
}

impl Holding {
    pub(crate) fn of(sandbox: &Sandbox) -> Self {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", sandbox.init()))
            .expect("the sandbox's mounts");
        let own = sandbox.root().display().to_string();
        let holding = text
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                let (top, place, options) = (*fields.get(3)?, *fields.get(4)?, *fields.get(5)?);
                let below = own.strip_prefix(place.trim_end_matches('/'))?;
                let root = format!("{}{below}", top.trim_end_matches('/'));
                below.starts_with('/').then_some((place.len(), root, options.to_owned()))
            })
            // Of several on one place the last is on top.
            .max_by_key(|(length, ..)| *length);
        let (_, root, options) = holding.expect("a mount above the stack's directory");
        Self { root, options }
    }

    pub(crate) fn flags(&self) -> BTreeSet<String> {
        let words = self.options.split(',').filter(|word| !matches!(*word, "rw" | "ro"));
        words.map(str::to_owned).collect()
    }
}
