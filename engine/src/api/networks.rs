//! `/networks`.

use std::sync::Arc;

use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::reply::{Reply, ok};
use crate::app::App;
use crate::network::NetworkError;

pub(crate) async fn route(app: &Arc<App>, call: Call) -> Result<Reply, ApiError> {
    let not_yet = |what| Err(NetworkError::NotYet(what).into());
    match call.key() {
        // Compat: with a slash at the end, too.
        ("GET", path) if path == ["networks"] || path == ["networks", ""] => {
            Ok(ok(&app.networks.list(&call.query.filters()?)?))
        }
        ("POST", path) if path == ["networks", "create"] => not_yet("creating networks"),
        ("POST", path) if path == ["networks", "prune"] => {
            // Nothing but predefined networks: nothing to prune.
            let filters = call.query.filters()?;
            filters.only(&["label", "label!", "until"])?;
            super::until(&filters)?;
            Ok(ok(&docker_api::network::NetworksPruned::default()))
        }
        ("POST", path) if path.last() == Some(&"connect") && path.len() > 2 => {
            app.networks.inspect(&call.name(1))?;
            not_yet("connecting a container to another network")
        }
        ("POST", path) if path.last() == Some(&"disconnect") && path.len() > 2 => {
            app.networks.inspect(&call.name(1))?;
            not_yet("disconnecting a container from its network")
        }
        ("GET", path) if path.len() > 1 => {
            call.query.boolean("verbose")?;
            let mut network = app.networks.inspect(&call.name(0))?;
            match call.query.get("scope") {
                "" | "local" => {}
                _ => return Err(NetworkError::NotFound(call.name(0)).into()),
            }
            if call.version < docker_api::version::ApiVersion::new(1, 48) {
                network.enable_ipv4 = None;
            }
            Ok(ok(&network))
        }
        ("DELETE", path) if path.len() > 1 => {
            let network = app.networks.inspect(&call.name(0))?;
            Err(NetworkError::Predefined(network.name).into())
        }
        _ => Err(ApiError::page_not_found()),
    }
}
