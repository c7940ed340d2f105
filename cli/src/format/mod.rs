//! What people and scripts read: templates, tables, sizes and spans of time.

pub(crate) mod natural;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod timeline;
pub(crate) mod units;
