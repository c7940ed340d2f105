//! `/volumes`.

use std::sync::Arc;

use docker_api::version::ApiVersion;
use docker_api::volume::{VolumeCreateRequest, VolumeList};
use http::StatusCode;

use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::reply::{Reply, json, no_content, ok};
use crate::app::App;

pub(crate) async fn route(app: &Arc<App>, mut call: Call) -> Result<Reply, ApiError> {
    let name = call.name(0);
    match call.key() {
        ("GET", path) if path == ["volumes"] => {
            let volumes = app.volumes.list(&call.query.filters()?)?;
            Ok(ok(&VolumeList { volumes, warnings: None }))
        }
        ("POST", path) if path == ["volumes", "create"] => {
            let request: VolumeCreateRequest = call.json().await?;
            Ok(json(StatusCode::CREATED, &app.volumes.create(request).await?))
        }
        ("POST", path) if path == ["volumes", "prune"] => {
            // Compat: before 1.42 named volumes went too.
            let all = call.version < ApiVersion::new(1, 42);
            Ok(ok(&app.volumes.prune(call.query.filters()?, all).await?))
        }
        ("GET", path) if path.len() > 1 => Ok(ok(&app.volumes.get(&name)?)),
        ("DELETE", path) if path.len() > 1 => {
            app.volumes.remove(&name, call.query.flag("force")).await?;
            Ok(no_content())
        }
        // Compat: cluster volumes only, and this engine is in no cluster.
        ("PUT", path) if path.len() > 1 => Err(ApiError::unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )),
        _ => Err(ApiError::page_not_found()),
    }
}
