//! runc-rs: the OCI runtime command line, as runc defines it.
#![expect(dead_code, reason = "the commands come next")]

mod cgroup;
mod seccomp;
mod spec;

fn main() {}
