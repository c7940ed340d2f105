//! What can go wrong in a request, and which ttrpc code the client sees.

use std::io;
use std::path::PathBuf;

use ttrpc_wire::{Code, Status};

/// Compat: texts end with containerd's name of the class where stock's do, since clients match on them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error("the shim was told to end: unavailable")]
    Stopping,
    #[error("container not created: failed precondition")]
    NotCreated,
    #[error("container {0}: not found")]
    NoContainer(String),
    #[error("process {0}: not found")]
    NoProcess(String),
    #[error("container {0} already exists: already exists")]
    ContainerExists(String),
    #[error("id {0}: already exists")]
    ExecExists(String),
    #[error("{verb} a process in state {state}: failed precondition")]
    State { verb: &'static str, state: &'static str },
    #[error("process already finished: not found")]
    Finished,
    #[error("no such container: not found")]
    NoSuchContainer,
    #[error("{0}: invalid argument")]
    Invalid(String),
    #[error("{0}: not implemented")]
    Unimplemented(String),
    /// The sentence of the runtime, as stock passes it on.
    #[error("{0}")]
    Runtime(String),
    #[error("{what}: no answer from the runtime within {seconds} s")]
    Deadline { what: &'static str, seconds: u64 },
    #[error("{call} {path}: {source}")]
    Path { call: &'static str, path: PathBuf, source: io::Error },
    #[error("{call}: {source}")]
    Call { call: &'static str, source: io::Error },
    #[error("decode request: {0}")]
    Decode(#[from] prost::DecodeError),
}

impl TaskError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NotCreated | Self::State { .. } => Code::FailedPrecondition,
            Self::NoContainer(_) | Self::NoProcess(_) | Self::Finished | Self::NoSuchContainer => {
                Code::NotFound
            }
            Self::Stopping => Code::Unavailable,
            Self::ContainerExists(_) | Self::ExecExists(_) => Code::AlreadyExists,
            Self::Invalid(_) | Self::Decode(_) => Code::InvalidArgument,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Runtime(_) | Self::Path { .. } | Self::Call { .. } => Code::Unknown,
        }
    }

    pub(crate) fn to_status(&self) -> Status {
        Status::new(self.code(), self.to_string())
    }
}

/// For `map_err`: names the call and its path.
pub(crate) fn path_error(
    call: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> TaskError {
    let path = path.into();
    move |source| TaskError::Path { call, path, source }
}

pub(crate) fn call_error<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> TaskError {
    move |source| TaskError::Call { call, source: source.into() }
}
