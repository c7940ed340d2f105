//! Starting programs that are to outlive the engine.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// A sibling of our own executable, else the bare name for PATH.
pub(crate) fn sibling(name: &str) -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(|dir| dir.join(name)))
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// Puts the program into a session of its own, so that nothing sent to ours reaches it.
pub(crate) fn detach(command: &mut Command) -> &mut Command {
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Ok(())
        })
    }
}
