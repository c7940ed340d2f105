//! What goes wrong with tasks, in the words containerd's clients know.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use proto::errdefs::Kind;
use ttrpc_wire::{CallError, Code, Status};

/// A failure of the runtime service.
///
/// Compat: containerd ends each text with the name of its class (`…: not found`, `…: unknown`); dockerd and
/// users match on both parts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error("task {id} not found")]
    NotFound { id: String },
    #[error("task {id}: already exists")]
    AlreadyExists { id: String },
    #[error("failed to start shim: {source}")]
    StartShim { source: Box<Self> },
    #[error("failed to create shim task: {source}")]
    CreateTask { source: Box<Self> },
    #[error("{step} bundle {}: {source}: unknown", path.display())]
    Bundle { step: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "failed to resolve runtime path: invalid runtime name {name}, correct runtime name should be \
         either format like `io.containerd.runc.v1` or a full path to the binary: unknown"
    )]
    RuntimeName { name: String },
    #[error(
        "failed to resolve runtime path: runtime {name:?} binary not installed {binary:?}: file does \
         not exist: unknown"
    )]
    RuntimeMissing { name: String, binary: String },
    #[error(
        "failed to resolve runtime path: invalid custom binary path: {} is not an executable file: \
         unknown",
        path.display()
    )]
    RuntimeBinary { path: PathBuf },
    #[error("run {} {action}: {source}: unknown", binary.display())]
    ShimSpawn { binary: PathBuf, action: &'static str, source: io::Error },
    #[error("{} {action}: no end within {}s: unknown", binary.display(), limit.as_secs())]
    ShimTimeout { binary: PathBuf, action: &'static str, limit: Duration },
    /// The text is what the shim printed.
    #[error("{output}: {status}: unknown")]
    ShimFailed { output: String, status: std::process::ExitStatus },
    #[error("shim answered {output:?} to start, which is no address: unknown")]
    ShimAnswer { output: String },
    #[error("unsupported shim version ({version}): not implemented")]
    ShimVersion { version: u32 },
    #[error("unsupported shim protocol {protocol:?}: not implemented")]
    ShimProtocol { protocol: String },
    #[error("connect to shim at {address}: {source}: unavailable")]
    Connect { address: String, source: io::Error },
    #[error("shim of {id} left no address: not found")]
    NoAddress { id: String },
    /// The shim's own word.
    #[error("{}", with_class(.0))]
    Shim(Status),
    #[error("ttrpc: closed: unavailable")]
    ShimGone,
    #[error("shim does not answer {method} within {}s: context deadline exceeded", limit.as_secs())]
    ShimSilent { method: String, limit: Duration },
    #[error("shim does not answer: {method} is given up: context deadline exceeded")]
    ShimStuck { method: String },
    #[error("{text}: internal")]
    ShimGarbled { text: String },
    #[error("task {id}: the owner ended: internal")]
    OwnerGone { id: String },
    #[error("serve events at {}: {source}", path.display())]
    Listen { path: PathBuf, source: io::Error },
}

impl TaskError {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::NoAddress { .. } => Kind::NotFound,
            Self::AlreadyExists { .. } => Kind::AlreadyExists,
            Self::StartShim { source } | Self::CreateTask { source } => source.kind(),
            Self::ShimVersion { .. } | Self::ShimProtocol { .. } => Kind::Unimplemented,
            Self::Connect { .. } | Self::ShimGone => Kind::Unavailable,
            Self::Shim(status) => Kind::from_code(status.code),
            Self::ShimSilent { .. } | Self::ShimStuck { .. } => Kind::DeadlineExceeded,
            Self::ShimGarbled { .. } | Self::OwnerGone { .. } => Kind::Internal,
            Self::Bundle { .. }
            | Self::RuntimeName { .. }
            | Self::RuntimeMissing { .. }
            | Self::RuntimeBinary { .. }
            | Self::ShimSpawn { .. }
            | Self::ShimTimeout { .. }
            | Self::ShimFailed { .. }
            | Self::ShimAnswer { .. }
            | Self::Listen { .. } => Kind::Unknown,
        }
    }
}

impl From<CallError> for TaskError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Status(status) => Self::Shim(status),
            CallError::Closed => Self::ShimGone,
            CallError::Timeout { method, timeout, .. } => {
                Self::ShimSilent { method, limit: timeout }
            }
            other => Self::ShimGarbled { text: other.to_string() },
        }
    }
}

/// Compat: containerd re-reads a shim's error by its code and so appends the class where it is missing.
fn with_class(status: &Status) -> String {
    let class = match status.code() {
        Code::InvalidArgument => "invalid argument",
        Code::NotFound => "not found",
        Code::AlreadyExists => "already exists",
        Code::FailedPrecondition => "failed precondition",
        Code::Unavailable => "unavailable",
        Code::Unimplemented => "not implemented",
        Code::Cancelled => "context canceled",
        Code::DeadlineExceeded => "context deadline exceeded",
        _ => "unknown",
    };
    let text = &status.message;
    if text == class || text.strip_suffix(class).is_some_and(|rest| rest.ends_with(": ")) {
        text.clone()
    } else {
        format!("{text}: {class}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shims_error_ends_with_its_class_once() {
        for (code, text, expected) in [
            (Code::NotFound, "process already finished", "process already finished: not found"),
            (Code::NotFound, "process x: not found", "process x: not found"),
            (
                Code::Unknown,
                "OCI runtime exec failed: boom",
                "OCI runtime exec failed: boom: unknown",
            ),
            (Code::Internal, "boom", "boom: unknown"),
            (Code::NotFound, "not found", "not found"),
        ] {
            assert_eq!(TaskError::Shim(Status::new(code, text)).to_string(), expected);
        }
    }

    #[test]
    fn wrapping_keeps_the_class_and_puts_the_outermost_first() {
        let status = Status::new(Code::AlreadyExists, "id in use");
        let error = TaskError::CreateTask { source: Box::new(TaskError::Shim(status)) };
        assert_eq!(error.kind(), Kind::AlreadyExists);
        assert_eq!(error.to_string(), "failed to create shim task: id in use: already exists");
    }
}
