//! ttrpc-wire.
