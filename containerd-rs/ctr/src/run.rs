//! `run`: from an image or a root directory to a process and its exit code.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use proto::any::{TYPE_SPEC, pack, pack_json};
use proto::containerd::runc::v1::Options;
use proto::containerd::services::containers::v1 as containers;
use proto::containerd::services::snapshots::v1::PrepareSnapshotRequest;
use serde_json::Value;

use crate::connection::{Client, answer};
use crate::io::Streams;
use crate::manifest::{own_platform, parse_platform, resolve};
use crate::snapshot::snapshotter;
use crate::table::parse_labels;
use crate::{container, manifest, spec, task};

#[derive(Args)]
pub(crate) struct Run {
    /// remove the container after running, cannot be used with --detach
    #[arg(long, conflicts_with = "detach")]
    pub(crate) rm: bool,
    /// detach from the task after it has started execution
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// send all IO to /dev/null
    #[arg(long)]
    pub(crate) null_io: bool,
    /// log uri
    #[arg(long)]
    pub(crate) log_uri: Option<String>,
    /// directory used for storing IO FIFOs
    #[arg(long)]
    pub(crate) fifo_dir: Option<PathBuf>,
    /// allocate a TTY for the container
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// additional environment variables (FOO=bar)
    #[arg(long)]
    pub(crate) env: Vec<String>,
    /// additional labels (foo=bar)
    #[arg(long)]
    pub(crate) label: Vec<String>,
    /// additional mount (type=bind,src=/tmp,dst=/host,options=rbind:ro)
    #[arg(long)]
    pub(crate) mount: Vec<String>,
    /// enable host networking for the container
    #[arg(long)]
    pub(crate) net_host: bool,
    /// run privileged container
    #[arg(long)]
    pub(crate) privileged: bool,
    /// set the container's file system as readonly
    #[arg(long)]
    pub(crate) read_only: bool,
    /// turn off the no-new-privileges flag
    #[arg(long)]
    pub(crate) allow_new_privs: bool,
    /// username or user id
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// the working directory of the process
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// path to the runtime-specific spec config file
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
    /// cgroup path
    #[arg(long)]
    pub(crate) cgroup: Option<String>,
    /// memory limit (in bytes)
    #[arg(long)]
    pub(crate) memory_limit: Option<u64>,
    /// set the CFS cpu quota
    #[arg(long)]
    pub(crate) cpus: Option<f64>,
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
    #[arg(long)]
    pub(crate) cap_drop: Vec<String>,
    /// run image for specific platform
    #[arg(long)]
    pub(crate) platform: Option<String>,
    #[arg(long)]
    pub(crate) snapshotter: Option<String>,
    /// runtime name
    #[arg(long, default_value = "io.containerd.runc.v2")]
    pub(crate) runtime: String,
    /// specify runc-compatible binary
    #[arg(long)]
    pub(crate) runc_binary: Option<String>,
    /// specify runc-compatible root
    #[arg(long)]
    pub(crate) runc_root: Option<String>,
    /// start runc with systemd cgroup manager
    #[arg(long)]
    pub(crate) runc_systemd_cgroup: bool,
    /// disable use of pivot-root
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// file path to write the task's pid
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// use custom rootfs that is not managed by containerd snapshotter
    #[arg(long)]
    pub(crate) rootfs: bool,
    /// image, or with --rootfs a directory
    pub(crate) image: String,
    /// the container's id
    pub(crate) id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// What the containers service knows of the new container.
pub(crate) async fn create(run: &Run, client: &Client) -> Result<containers::Container> {
    let mut container = containers::Container {
        id: run.id.clone(),
        labels: parse_labels(&run.label),
        runtime: Some(containers::container::Runtime {
            name: run.runtime.clone(),
            options: runtime_options(run),
        }),
        ..containers::Container::default()
    };
    // Until the container stands, nothing but this holds its snapshot.
    client.leased(async |client| fill(run, client, &mut container).await).await?;
    Ok(container)
}

async fn fill(run: &Run, client: &Client, container: &mut containers::Container) -> Result<()> {
    let (config, root) = if run.rootfs {
        let root = std::path::absolute(&run.image)?;
        (Value::Null, root.to_string_lossy().into_owned())
    } else {
        let image = manifest::image(client, &run.image).await?;
        let platform =
            run.platform.as_deref().map_or_else(|| Ok(own_platform()), parse_platform)?;
        let resolved = resolve(client, &image, &platform).await?;
        let snapshotter = snapshotter(run.snapshotter.clone());
        let parent = resolved.unpack(client, &snapshotter).await?;
        container.image.clone_from(&image.name);
        container.labels.extend(image_labels(&resolved.config));
        container.snapshotter.clone_from(&snapshotter);
        container.snapshot_key.clone_from(&run.id);
        let prepare = PrepareSnapshotRequest {
            snapshotter,
            key: run.id.clone(),
            parent,
            ..Default::default()
        };
        answer(client.snapshots().prepare(prepare).await)?;
        (resolved.config, "rootfs".to_owned())
    };
    let spec = spec::build(run, client.namespace(), &root, &config)
        .and_then(|spec| Ok(serde_json::to_vec(&spec)?));
    let spec = match spec {
        Ok(spec) => spec,
        Err(error) => {
            release_snapshot(client, container).await;
            return Err(error);
        }
    };
    container.spec = Some(pack_json(TYPE_SPEC, spec));
    let request = containers::CreateContainerRequest { container: Some(container.clone()) };
    if let Err(error) = answer(client.containers().create(request).await) {
        release_snapshot(client, container).await;
        return Err(error);
    }
    Ok(())
}

async fn release_snapshot(client: &Client, container: &containers::Container) {
    if container.snapshot_key.is_empty() {
        return;
    }
    let request = proto::containerd::services::snapshots::v1::RemoveSnapshotRequest {
        snapshotter: container.snapshotter.clone(),
        key: container.snapshot_key.clone(),
    };
    // The failure that led here is the one to tell.
    client.snapshots().remove(request).await.map(drop).unwrap_or_default();
}

fn image_labels(config: &Value) -> HashMap<String, String> {
    let labels = config["config"]["Labels"].as_object();
    let labels = labels.into_iter().flatten();
    labels.map(|(key, value)| (key.clone(), manifest::text(value))).collect()
}

fn runtime_options(run: &Run) -> Option<prost_types::Any> {
    let options = Options {
        binary_name: run.runc_binary.clone().unwrap_or_default(),
        root: run.runc_root.clone().unwrap_or_default(),
        systemd_cgroup: run.runc_systemd_cgroup,
        no_pivot_root: run.no_pivot,
        ..Options::default()
    };
    (options != Options::default()).then(|| pack(&options))
}

pub(crate) async fn execute(run: Run, client: &Client, out: &mut dyn Write) -> Result<u8> {
    if run.tty && run.detach && run.log_uri.is_none() && !run.null_io {
        // Compat: ctr would wait for a terminal that it then leaves.
        bail!("--tty with --detach needs --log-uri or --null-io");
    }
    create(&run, client).await?;
    let result = start(&run, client, out).await;
    if (run.rm || result.is_err())
        && let Err(error) = container::delete(client, &run.id, false).await
    {
        return result.and(Err(error));
    }
    result
}

async fn start(run: &Run, client: &Client, out: &mut dyn Write) -> Result<u8> {
    let streams =
        streams(run.null_io, run.log_uri.as_deref(), run.fifo_dir.as_deref(), &run.id, run.tty)?;
    let running = task::create(client, &run.id, streams).await?;
    if let Some(path) = &run.pid_file {
        std::fs::write(path, running.pid.to_string())
            .with_context(|| format!("write {}", path.display()))?;
    }
    if run.detach {
        return running.detach(client).await.map(|()| 0);
    }
    let status = running.attend(client).await?;
    out.flush()?;
    Ok(u8::try_from(status).unwrap_or(u8::MAX))
}

/// From the flags that `run`, `tasks start` and `tasks exec` share.
pub(crate) fn streams(
    null: bool,
    log: Option<&str>,
    below: Option<&Path>,
    id: &str,
    terminal: bool,
) -> Result<Streams> {
    match (null, log) {
        (true, _) => Ok(Streams::null(terminal)),
        (false, Some(uri)) => Ok(Streams::log(uri, terminal)),
        (false, None) => {
            Streams::fifos(below.unwrap_or(Path::new("/run/containerd/fifo")), id, terminal)
        }
    }
}
