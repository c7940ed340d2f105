//! The one place where the parts are wired together.

use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::apparmor::Apparmor;
use crate::config::Config;
use crate::container::Containers;
use crate::container::output::Outputs;
use crate::container::rootfs::blocking;
use crate::containerd::Containerd;
use crate::events::Events;
use crate::exec::Execs;
use crate::image::Images;
use crate::network::Networks;
use crate::trace::Traces;
use crate::volume::Volumes;

/// Everything a request can need.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Arc<Config>,
    /// This engine's identity, kept in the data root.
    pub(crate) id: String,
    pub(crate) apparmor: Apparmor,
    pub(crate) events: Events,
    pub(crate) containerd: Containerd,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) images: Images,
    pub(crate) containers: Containers,
    pub(crate) execs: Execs,
    pub(crate) outputs: Outputs,
    pub(crate) traces: Traces,
    /// Set when the engine is to end.
    pub(crate) shutdown: CancellationToken,
}

impl App {
    /// Opens the state, reaches containerd, finds the containers again.
    pub(crate) async fn start(config: Config) -> anyhow::Result<Arc<Self>> {
        refuse_foreign_root(&config)?;
        let id = crate::sys::dirs::prepare(&config)?;
        let config = Arc::new(config);
        let apparmor = Apparmor::of_host();
        // Compat: what cannot be loaded fails each start, not the engine's.
        if let Err(error) = blocking(move || Ok(apparmor.load_default()?)).await {
            tracing::error!("{error}");
        }
        let events = Events::new();
        let shutdown = CancellationToken::new();
        let containerd = Containerd::start(&config, &shutdown).await.context("containerd")?;
        let networks = Networks::load(&config, events.clone()).await.context("load networks")?;
        let volumes = Volumes::load(&config, events.clone()).await.context("load volumes")?;
        let images = Images::load(&config, containerd.clone(), events.clone())
            .await
            .context("load images")?;
        let containers = Containers::default();
        let outputs = Outputs::new(containerd.shim_writes_logs());
        let traces = Traces::new(&config.exec_root);
        let app = Arc::new(Self {
            config,
            id,
            apparmor,
            events,
            containerd,
            networks,
            volumes,
            images,
            containers,
            execs: Execs::default(),
            outputs,
            traces,
            shutdown,
        });
        crate::container::reload::run(&app).await.context("reload containers")?;
        tracing::info!(id = app.id, "Daemon has completed initialization");
        Ok(app)
    }

    /// Ends the engine's own work; the containers stay unless `--live-restore=false`.
    pub(crate) async fn stop(self: &Arc<Self>) {
        if !self.config.live_restore {
            crate::container::stop_all(self).await;
        }
        self.shutdown.cancel();
        self.outputs.leave().await;
        if let Err(error) = self.networks.shutdown().await {
            tracing::warn!(%error, "the network leaves something behind");
        }
        self.containerd.release(&self.config).await;
    }
}

/// A data root of stock Docker is never written into.
fn refuse_foreign_root(config: &Config) -> anyhow::Result<()> {
    let root = &config.data_root;
    for mark in ["engine-id", "overlay2", "image", "buildkit"] {
        if root.join(mark).exists() {
            anyhow::bail!(
                "{} holds the state of stock Docker, which dockerd-rs does not touch; give another --data-root (an importer is planned)",
                root.display()
            );
        }
    }
    Ok(())
}
