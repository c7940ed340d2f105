//! What went wrong, as the client hears it: a status and `{"message": …}`.

use docker_api::error::ErrorBody;
use http::StatusCode;
use proto::errdefs::Kind;

use super::reply::{Reply, json};

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

/// Errors of the nouns say their class; the text is their `Display`.
pub(crate) trait Classified: std::fmt::Display {
    fn kind(&self) -> Kind;
}

impl<E: Classified> From<E> for ApiError {
    fn from(error: E) -> Self {
        let status =
            StatusCode::from_u16(error.kind().http_status()).unwrap_or(StatusCode::BAD_GATEWAY);
        Self { status, message: error.to_string() }
    }
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(crate) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 304, which has no body.
    pub(crate) fn not_modified() -> Self {
        Self::new(StatusCode::NOT_MODIFIED, "")
    }

    /// Compat: unknown paths and wrong methods alike.
    pub(crate) fn page_not_found() -> Self {
        Self::not_found("page not found")
    }

    pub(crate) fn into_reply(self) -> Reply {
        if self.status == StatusCode::NOT_MODIFIED {
            return super::status(self.status);
        }
        if self.status.is_server_error() {
            tracing::error!(status = self.status.as_u16(), "{}", self.message);
        } else {
            tracing::debug!(status = self.status.as_u16(), "{}", self.message);
        }
        json(self.status, &ErrorBody { message: self.message })
    }
}

impl Classified for tonic::Status {
    fn kind(&self) -> Kind {
        match Kind::of(self) {
            // Compat: dockerd maps a failed precondition of containerd to 400.
            Kind::FailedPrecondition => Kind::InvalidArgument,
            kind => kind,
        }
    }
}

impl Classified for crate::store::StoreError {
    fn kind(&self) -> Kind {
        Kind::Internal
    }
}

impl Classified for docker_api::filters::FilterError {
    fn kind(&self) -> Kind {
        Kind::InvalidArgument
    }
}
