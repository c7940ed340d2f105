//! From `config.json` to what will be done: load, check, plan.

pub(crate) mod oci;
