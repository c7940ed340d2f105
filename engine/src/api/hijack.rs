//! Hijacked connections.
