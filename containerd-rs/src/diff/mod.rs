//! Applies a layer blob to a snapshot's mounts.
//!
//! Where the mounts name one writable directory (a bind, or an overlay's upper directory) the layer
//! is written straight into it, whiteouts in overlay's form; otherwise the mounts are mounted on a
//! private directory and whiteouts remove what they hide.

use std::path::PathBuf;

use crate::content::Content;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::snapshot::Mount;
use crate::store::record::Descriptor;

#[derive(Clone)]
pub(crate) struct Diff {
    content: Content,
    mount_points: PathBuf,
}

impl Diff {
    pub(crate) fn new(content: Content, mount_points: PathBuf) -> Self {
        Self { content, mount_points }
    }

    /// Answers the descriptor of the uncompressed layer.
    pub(crate) async fn apply(
        &self,
        context: &Context,
        layer: &Descriptor,
        mounts: Vec<Mount>,
        sync: bool,
    ) -> Result<Descriptor> {
        drop((context, layer, mounts, sync, &self.content, &self.mount_points));
        Err(Error::Unimplemented { reason: "diff apply".to_owned() })
    }
}
