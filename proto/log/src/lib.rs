//! container-log.
