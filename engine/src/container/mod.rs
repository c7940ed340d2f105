//! Containers.

pub(crate) mod reload;

use std::sync::Arc;

use crate::app::App;

/// All containers.
#[derive(Debug, Default)]
pub(crate) struct Containers {}

/// Ends every container, with `--live-restore=false`.
pub(crate) async fn stop_all(_app: &Arc<App>) {}

impl Containers {
    /// Ids of containers made from this image: `(id, running)`.
    pub(crate) fn using_image(&self, _image_id: &str) -> Vec<(String, bool)> {
        Vec::new()
    }

    /// Finds a container by id, name or id prefix: `(id, name without slash)`.
    pub(crate) fn find(&self, _name: &str) -> Option<(String, String)> {
        None
    }
}
