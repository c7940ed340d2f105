//! The error body: `{"message": "…"}`.

use serde::{Deserialize, Serialize};

/// What every failed call answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    #[serde(default)]
    pub message: String,
}
