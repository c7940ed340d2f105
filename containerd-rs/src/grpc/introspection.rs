//! `containerd.services.introspection.v1.Introspection`.
//!
//! Our parts are listed under the ids of containerd's plugins, which is what clients look for.

use std::borrow::Cow;
use std::collections::HashMap;

use proto::containerd::services::introspection::v1::introspection_server::Introspection;
use proto::containerd::services::introspection::v1::{
    Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse, ServerResponse,
};
use proto::containerd::types::Platform;
use proto::errdefs::Kind;
use tonic::{Request, Response};

use super::wire::{Answer, to_status};
use crate::app::App;
use crate::filter::{Fields, Filters};
use crate::runtime::Runtime;

pub(crate) struct IntrospectionService {
    pub(crate) app: App,
    pub(crate) runtime: Runtime,
}

#[tonic::async_trait]
impl Introspection for IntrospectionService {
    async fn plugins(&self, request: Request<PluginsRequest>) -> Answer<PluginsResponse> {
        let filters = Filters::parse(&request.get_ref().filters).map_err(to_status)?;
        let mut plugins = self.all();
        plugins.retain(|plugin| filters.matches(plugin));
        Ok(Response::new(PluginsResponse { plugins }))
    }

    async fn server(&self, _request: Request<()>) -> Answer<ServerResponse> {
        // `pid:[4026531836]`
        let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let digits: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        Ok(Response::new(ServerResponse {
            uuid: self.app.uuid.clone(),
            pid: std::process::id().into(),
            pidns: digits.parse().unwrap_or(0),
            deprecations: Vec::new(),
        }))
    }

    async fn plugin_info(&self, request: Request<PluginInfoRequest>) -> Answer<PluginInfoResponse> {
        let request = request.into_inner();
        let found = self
            .all()
            .into_iter()
            .find(|plugin| plugin.r#type == request.r#type && plugin.id == request.id);
        let Some(plugin) = found else {
            return Err(Kind::NotFound
                .status(format!("plugin {}.{}: not found", request.r#type, request.id)));
        };
        if request.options.is_some() {
            return Err(Kind::Unimplemented.status(format!(
                "plugin {}.{} does not support info with options",
                request.r#type, request.id
            )));
        }
        Ok(Response::new(PluginInfoResponse { plugin: Some(plugin), extra: None }))
    }
}

impl IntrospectionService {
    fn all(&self) -> Vec<Plugin> {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let mut all = vec![Plugin {
            exports: HashMap::from([("root".to_owned(), text(self.app.content.root()))]),
            ..plugin("content.v1", "content", &[])
        }];
        for (name, snapshotter) in self.app.snapshots.all() {
            all.push(Plugin {
                exports: HashMap::from([("root".to_owned(), text(snapshotter.root()))]),
                capabilities: snapshotter.capabilities().iter().map(ToString::to_string).collect(),
                platforms: vec![platform()],
                ..plugin("snapshotter.v1", name, &[])
            });
        }
        let policy = HashMap::from([("policy".to_owned(), "shared".to_owned())]);
        all.push(Plugin { exports: policy, ..plugin("metadata.v1", "bolt", METADATA_NEEDS) });
        all.push(Plugin {
            platforms: vec![platform()],
            ..plugin("differ.v1", "walking", &["metadata.v1"])
        });
        all.push(plugin("event.v1", "exchange", &[]));
        all.push(plugin("gc.v1", "scheduler", &["metadata.v1"]));
        all.push(plugin("lease.v1", "manager", &["metadata.v1"]));
        let mut task = Plugin {
            platforms: vec![platform()],
            ..plugin("runtime.v2", "task", &["event.v1", "metadata.v1"])
        };
        if self.runtime.serves_our_shim() {
            // Announced only when it holds: the shim that answers to the stock name is ours.
            let schemes = "fifo,binary,file,json-file".to_owned();
            task.exports.insert("log-uri-schemes".to_owned(), schemes);
        }
        all.push(task);
        for name in SERVICES {
            all.push(plugin("service.v1", &format!("{name}-service"), &["metadata.v1"]));
        }
        for name in SERVICES.iter().chain(GRPC_ONLY) {
            all.push(plugin("grpc.v1", name, &["service.v1"]));
        }
        all
    }
}

impl Fields for Plugin {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path {
            [field] if field == "type" => Some(self.r#type.as_str().into()),
            [field] if field == "id" => Some(self.id.as_str().into()),
            [field, name] if field == "platforms" => {
                let platform = self.platforms.first()?;
                Some(Cow::Owned(match name.as_str() {
                    "os" => platform.os.clone(),
                    "architecture" => platform.architecture.clone(),
                    _ => return None,
                }))
            }
            [field, name] if field == "capabilities" => {
                self.capabilities.iter().find(|known| *known == name).map(|c| c.as_str().into())
            }
            _ => None,
        }
    }
}

fn plugin(kind: &str, id: &str, requires: &[&str]) -> Plugin {
    Plugin {
        r#type: format!("io.containerd.{kind}"),
        id: id.to_owned(),
        requires: requires.iter().map(|kind| format!("io.containerd.{kind}")).collect(),
        ..Plugin::default()
    }
}

/// This host, in Go's words.
fn platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: if architecture == "arm64" { "v8".to_owned() } else { String::new() },
        ..Platform::default()
    }
}

const METADATA_NEEDS: &[&str] = &["content.v1", "snapshotter.v1"];
const SERVICES: &[&str] = &[
    "containers",
    "content",
    "diff",
    "images",
    "introspection",
    "leases",
    "namespaces",
    "snapshots",
    "tasks",
];
const GRPC_ONLY: &[&str] = &["events", "healthcheck", "version"];
