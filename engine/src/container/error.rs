//! What can go wrong with a container. The texts are dockerd's where clients match on them.

use proto::errdefs::Kind;

use super::lifecycle::Refusal;
use crate::api::error::Classified;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error("No such container: {0}")]
    NotFound(String),
    #[error("No such exec instance: {0}")]
    NoExec(String),
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{by}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken { name: String, by: String },
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    BadName(String),
    #[error("{0}")]
    Invalid(String),
    /// A bad request that dockerd answers with 500.
    #[error("{0}")]
    System(String),
    #[error(
        "create {volume}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
    )]
    NoVolumeDriver { volume: String, driver: String },
    /// A container that another one needs is not there.
    #[error("{0}")]
    Joined(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    NotImplemented(String),
    #[error("already")]
    Already,
    /// The start failed; the record holds the code.
    #[error("{message}")]
    Start { message: String, exit_code: i64, invalid: bool },
    #[error("{step}: {source}")]
    Io { step: String, source: std::io::Error },
    #[error("{step}: {source}")]
    Kernel { step: String, source: nix::Error },
    #[error("{step}: {}", .status.message())]
    Containerd { step: &'static str, status: Box<tonic::Status> },
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    #[error(transparent)]
    Volume(#[from] crate::volume::VolumeError),
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    #[error(transparent)]
    Netns(#[from] crate::sys::netns::NetnsError),
    #[error(transparent)]
    Apparmor(#[from] crate::apparmor::ApparmorError),
    #[error("the container's owner is gone")]
    OwnerGone,
}

impl ContainerError {
    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let step = step.into();
        move |source| Self::Io { step, source }
    }

    pub(crate) fn kernel(step: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let step = step.into();
        move |source| Self::Kernel { step, source }
    }

    pub(crate) fn containerd(step: &'static str) -> impl FnOnce(tonic::Status) -> Self {
        move |status| Self::Containerd { step, status: Box::new(status) }
    }

    /// Compat: dockerd's words for what the table refuses.
    pub(crate) fn refused(refusal: Refusal, id: &str, name: &str) -> Self {
        Self::Conflict(match refusal {
            Refusal::StartPaused => {
                "cannot start a paused container, try unpause instead".to_owned()
            }
            Refusal::StartRemoving => {
                "container is marked for removal and cannot be started".to_owned()
            }
            Refusal::NotRunning => format!("container {id} is not running"),
            Refusal::AlreadyPaused => format!("Container {id} is already paused"),
            Refusal::NotPaused => format!("Container {id} is not paused"),
            Refusal::IsRestarting => {
                format!("Container {id} is restarting, wait until the container is running")
            }
            Refusal::RemoveRunning => format!(
                "cannot remove container \"{name}\": container is running: stop the container before removing or force remove"
            ),
            Refusal::RemovePaused => format!(
                "cannot remove container \"{name}\": container is paused and must be unpaused first"
            ),
            Refusal::RemoveInProgress => {
                format!("removal of container {id} is already in progress")
            }
        })
    }
}

impl Classified for ContainerError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) | Self::NoExec(_) | Self::Joined(_) | Self::NoVolumeDriver { .. } => {
                Kind::NotFound
            }
            Self::Ambiguous(_) | Self::BadName(_) | Self::Invalid(_) => Kind::InvalidArgument,
            Self::NameTaken { .. } | Self::Conflict(_) => Kind::AlreadyExists,
            Self::NotImplemented(_) => Kind::Unimplemented,
            Self::Start { invalid: true, .. } => Kind::InvalidArgument,
            Self::Already
            | Self::System(_)
            | Self::Start { .. }
            | Self::Io { .. }
            | Self::Kernel { .. }
            | Self::Store(_)
            | Self::Netns(_)
            | Self::Apparmor(_)
            | Self::OwnerGone => Kind::Internal,
            Self::Containerd { status, .. } => status.kind(),
            Self::Network(error) => error.kind(),
            Self::Volume(error) => error.kind(),
            Self::Image(error) => error.kind(),
        }
    }
}
