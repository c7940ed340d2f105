//! Bringing a container to life, and what is released when it has ended.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use container_log::uri::LogUri;
use proto::containerd::services::containers::v1 as containers_api;
use proto::containerd::services::tasks::v1 as tasks_api;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use trace_log::task::{current, span};

use super::output::Fifos;
use super::record::{Mounted, Paths, Record};
use super::rootfs::{self, blocking};
use super::spec::{self, Facts};
use super::{Container, ContainerError, create, files};
use crate::app::App;
use crate::apparmor::Apparmor;
use crate::containerd::SNAPSHOTTER;
use crate::store::Durability;
use crate::sys;
use crate::sys::inside::Inside;

/// Starts the process; answers its pid. What was made before a failure is the caller's to release.
pub(super) async fn start(app: &Arc<App>, container: &Container) -> Result<u32, ContainerError> {
    let paths = &container.paths;
    let record = container.record().clone();
    let (mounted, attached) = tokio::join!(
        span("mount rootfs", rootfs::mount(app, &record.id, &paths.rootfs)),
        span("attach network", attach_networks(app, &record, paths)),
    );
    mounted?;
    if let Some(attached) = attached? {
        container.record().attached = Some(attached.into());
    }
    let mounts = mount_volumes(app, &record, &paths.rootfs).await?;
    let joined_pid = |kind: &str, mode: &str| -> Result<Option<u32>, ContainerError> {
        let Some(name) = mode.strip_prefix("container:") else { return Ok(None) };
        let other = app.containers.get(name)?;
        let other = other.record();
        if !other.state.phase.has_process() {
            return Err(ContainerError::Conflict(format!(
                "cannot join {kind} namespace of a non running container: container {} is {}",
                other.name,
                other.state.phase.as_str()
            )));
        }
        Ok(Some(other.state.pid))
    };
    if let Some(name) = record.host_config.network_mode.strip_prefix("container:") {
        // The namespace comes with its name.
        let other = app.containers.get(name).map_err(|error| {
            ContainerError::Joined(format!("joining network namespace of container: {error}"))
        })?;
        if other.id == record.id {
            return Err(ContainerError::System("cannot join own network".to_owned()));
        }
        if !other.phase().has_process() {
            return Err(ContainerError::Conflict(format!(
                "cannot join network of a non running container: {}",
                other.id
            )));
        }
        let (hostname, domainname) = {
            let other = other.record();
            (other.config.hostname.clone(), other.config.domainname.clone())
        };
        let mut own = container.record();
        own.config.hostname = hostname;
        own.config.domainname = domainname;
    }
    let record = container.record().clone();
    let host = &record.host_config;
    let netns = match joined_pid("network", &host.network_mode)? {
        Some(pid) => Some(PathBuf::from(format!("/proc/{pid}/ns/net"))),
        None => (!record.networks.is_empty()).then(|| paths.netns.clone()),
    };
    let ipc_pid = joined_pid("IPC", &host.ipc_mode)?;
    let pid_pid = joined_pid("PID", &host.pid_mode)?;
    let shared_files = match host.network_mode.strip_prefix("container:") {
        Some(name) => Some(app.containers.get(name)?.paths.dir.clone()),
        None => None,
    };
    let shm = match host.ipc_mode.as_str() {
        "shareable" => Some(paths.shm.clone()),
        mode => match mode.strip_prefix("container:") {
            Some(name) => Some(shared_memory(&*app.containers.get(name)?)?),
            None => None,
        },
    };
    let mut record = record;
    if let Some(here) = current() {
        // What is below reads it in the configuration, and nowhere else is it kept.
        let annotations = record.host_config.annotations.get_or_insert_default();
        annotations.insert(trace_log::ANNOTATION.to_owned(), here.place().to_string());
    }
    let (config, own_paths) = (Arc::clone(&app.config), paths.clone());
    let (apparmor, told) = (app.apparmor, app.apparmor.told(&record.host_config));
    let prepared = blocking(move || {
        prepare_files(
            &record,
            &config,
            apparmor,
            &own_paths,
            mounts,
            netns,
            shm,
            shared_files,
            ipc_pid,
            pid_pid,
        )
    });
    let spec = span("specification", prepared).await?;
    container.record().apparmor = told;
    launch(app, container, spec).await
}

/// What the IPC namespace's owner lets others mount.
fn shared_memory(owner: &Container) -> Result<PathBuf, ContainerError> {
    if owner.record().host_config.ipc_mode != "shareable" {
        // Compat: dockerd's words.
        return Err(ContainerError::Invalid(format!(
            "can't join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
            owner.id
        )));
    }
    Ok(owner.paths.shm.clone())
}

/// Everything on disk, then the specification's text. Blocking.
#[expect(clippy::too_many_arguments, reason = "one call, one thread")]
fn prepare_files(
    record: &Record,
    config: &crate::config::Config,
    apparmor: Apparmor,
    paths: &Paths,
    mounts: Vec<(Mounted, PathBuf)>,
    netns: Option<PathBuf>,
    shm: Option<PathBuf>,
    shared_files: Option<PathBuf>,
    ipc_pid: Option<u32>,
    pid_pid: Option<u32>,
) -> Result<Vec<u8>, ContainerError> {
    if shared_files.is_none() {
        files::write(&paths.dir, record, &config.network)?;
    }
    std::fs::create_dir_all(&paths.run)
        .map_err(ContainerError::io(format!("create {}", paths.run.display())))?;
    if record.config.open_stdin {
        make_fifo(&paths.run.join("stdin"))?;
    }
    if record.host_config.ipc_mode == "shareable" && !sys::mount::is_mounted(&paths.shm) {
        std::fs::create_dir_all(&paths.shm)
            .map_err(ContainerError::io(format!("create {}", paths.shm.display())))?;
        sys::mount::shm(&paths.shm, record.host_config.shm_size)
            .map_err(ContainerError::kernel("mount shm"))?;
    }
    let inside = Inside::open(&paths.rootfs)
        .map_err(ContainerError::io(format!("open {}", paths.rootfs.display())))?;
    if !record.config.working_dir.is_empty() {
        let directory = &record.config.working_dir;
        inside.make_dirs(directory, 0o755).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotADirectory => {
                ContainerError::Invalid(format!("Cannot mkdir: {directory} is not a directory"))
            }
            _ => ContainerError::io(format!("create working directory {directory}"))(error),
        })?;
    }
    let groups = record.host_config.group_add.clone().unwrap_or_default();
    let user = spec::user::resolve(&inside, &record.config.user, &groups)?;
    for (mounted, source) in &mounts {
        if mounted.kind == "bind" && !source.exists() {
            if !mounted.create_source {
                return Err(ContainerError::Invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    source.display()
                )));
            }
            std::fs::create_dir_all(source).map_err(ContainerError::io(format!(
                "error while creating mount source path '{}'",
                source.display()
            )))?;
        }
    }
    let facts = Facts {
        rootfs: &paths.rootfs,
        files: shared_files.as_deref().unwrap_or(&paths.dir),
        netns,
        shm,
        mounts,
        user,
        ipc_pid,
        pid_pid,
        apparmor: apparmor.confine(&record.host_config)?,
    };
    let spec = spec::build(record, config, &facts)?;
    Ok(serde_json::to_vec(&spec).unwrap_or_default())
}

async fn attach_networks(
    app: &App,
    record: &Record,
    paths: &Paths,
) -> Result<Option<crate::network::Attached>, ContainerError> {
    if record.networks.is_empty() {
        return Ok(None);
    }
    let netns = paths.netns.clone();
    blocking(move || {
        // One left over from an earlier life would be the wrong one.
        sys::netns::remove(&netns)?;
        Ok(sys::netns::create(&netns)?)
    })
    .await?;
    match app.networks.attach(&create::container_net(record), &paths.netns).await {
        Ok(attached) => Ok(Some(attached)),
        Err(error) => {
            let netns = paths.netns.clone();
            drop(blocking(move || Ok(sys::netns::remove(&netns)?)).await);
            Err(error.into())
        }
    }
}

async fn mount_volumes(
    app: &App,
    record: &Record,
    rootfs: &Path,
) -> Result<Vec<(Mounted, PathBuf)>, ContainerError> {
    let mut mounts = Vec::new();
    for mount in &record.mounts {
        let source = if mount.kind == "volume" {
            let dir = app.volumes.mount(&mount.name, &record.id).await?;
            let told = [
                ("destination", mount.destination.as_str()),
                ("propagation", mount.propagation.as_str()),
                ("read/write", if mount.rw { "true" } else { "false" }),
            ];
            volume_event(app, record, mount, "mount", &told);
            if !mount.no_copy && !record.populated && mount.subpath.is_empty() {
                app.volumes.copy_up(&mount.name, rootfs, &mount.destination).await?;
            }
            if mount.subpath.is_empty() {
                dir
            } else {
                dir.join(mount.subpath.trim_start_matches('/'))
            }
        } else {
            PathBuf::from(&mount.source)
        };
        mounts.push((mount.clone(), source));
    }
    Ok(mounts)
}

fn volume_event(app: &App, record: &Record, mount: &Mounted, action: &str, more: &[(&str, &str)]) {
    let own = [("container", record.id.as_str()), ("driver", "local")];
    let all = own.iter().chain(more).map(|&(name, value)| (name.to_owned(), value.to_owned()));
    app.events.publish("volume", action, &mount.name, all.collect());
}

/// The calls to containerd, in order; a client that attached first is connected before Start.
async fn launch(
    app: &Arc<App>,
    container: &Container,
    spec: Vec<u8>,
) -> Result<u32, ContainerError> {
    let record = container.record().clone();
    let id = record.id.clone();
    let runtime = runtime(app, &record);
    let request = containers_api::CreateContainerRequest {
        container: Some(containers_api::Container {
            id: id.clone(),
            labels: HashMap::from([
                ("dockerd-rs.engine".to_owned(), app.id.clone()),
                ("com.docker/engine.bundle.path".to_owned(), String::new()),
            ]),
            image: String::new(),
            runtime: Some(runtime),
            spec: Some(proto::any::pack_json(proto::any::TYPE_SPEC, spec)),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: id.clone(),
            ..containers_api::Container::default()
        }),
    };
    let mut containers = app.containerd.containers();
    let made = async {
        match containers.create(request.clone()).await {
            Err(status) if status.code() == tonic::Code::AlreadyExists => {
                // Left over from an engine that died; nothing of it runs, or we would know.
                delete_below(app, &id).await;
                containers.create(request).await
            }
            other => other,
        }
    };
    span("create container", made)
        .await
        .map_err(ContainerError::containerd("create container record"))?;
    let fifos = Fifos::new(&container.paths.run, "", record.config.tty);
    let output = app.outputs.prepare(&id, log_uri(container, &record), fifos).await?;
    let task = tasks_api::CreateTaskRequest {
        container_id: id.clone(),
        stdin: if record.config.open_stdin {
            container.paths.run.join("stdin").to_string_lossy().into_owned()
        } else {
            String::new()
        },
        stderr: output.stderr,
        stdout: output.stdout,
        terminal: record.config.tty,
        ..tasks_api::CreateTaskRequest::default()
    };
    let mut tasks = app.containerd.tasks();
    let created = span("create task", tasks.create(task))
        .await
        .map_err(|status| start_error("failed to create task for container", &status))?
        .into_inner();
    // A network is kept over a restart of ours for those that are known to have one.
    container.change(Durability::Written, |_| {})?;
    connect_waiting(container).await;
    let start = tasks_api::StartRequest { container_id: id, exec_id: String::new() };
    span("start task", tasks.start(start))
        .await
        .map_err(|status| start_error("failed to start task", &status))?;
    Ok(created.pid)
}

/// Hands the live output to those who attached before the start.
async fn connect_waiting(container: &Container) {
    let waiting =
        std::mem::take(&mut *container.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    for client in waiting.into_iter().filter(|client| !client.is_closed()) {
        match UnixStream::connect(&container.paths.attach).await {
            Ok(stream) => drop(client.send(stream)),
            Err(error) => tracing::warn!(container = container.id, "attach: {error}"),
        }
    }
}

/// Where the container's output goes, whoever writes it.
pub(super) fn log_uri(container: &Container, record: &Record) -> LogUri {
    let mut uri = LogUri::new(container.paths.log(&record.id));
    uri.attach = Some(container.paths.attach.clone());
    let log = &record.host_config.log_config;
    uri.discard = log.kind == "none";
    let option = |key: &str| log.config.get(key).map(String::as_str);
    uri.rotation.max_size = option("max-size")
        .and_then(|text| crate::config::parse_size(text).ok())
        .and_then(|size| u64::try_from(size).ok());
    if let Some(files) = option("max-file").and_then(|text| text.parse().ok()) {
        uri.rotation.max_files = files;
    }
    uri.rotation.compress = option("compress") == Some("true");
    let attrs = super::logs::attributes(record);
    if !attrs.is_empty() {
        uri.attrs = serde_json::to_string(&attrs).unwrap_or_default();
    }
    uri
}

fn runtime(app: &App, record: &Record) -> containers_api::container::Runtime {
    let name = record.host_config.runtime.as_deref().unwrap_or_default();
    let (name, binary) = match name {
        name if name.starts_with("io.containerd.") => (name.to_owned(), String::new()),
        name => (
            "io.containerd.runc.v2".to_owned(),
            app.config.runtimes.get(name).cloned().unwrap_or_default(),
        ),
    };
    // Compat: where stock keeps the runtimes' state, so that private stacks do not meet there.
    let directory = match record.host_config.runtime.as_deref() {
        None | Some("") => "runtime-runc".to_owned(),
        Some(name) => format!("runtime-{name}"),
    };
    let options = proto::containerd::runc::v1::Options {
        binary_name: binary,
        root: app.config.exec_root.join(directory).to_string_lossy().into_owned(),
        systemd_cgroup: app.config.systemd_cgroup,
        ..proto::containerd::runc::v1::Options::default()
    };
    containers_api::container::Runtime { name, options: Some(proto::any::pack(&options)) }
}

/// Compat: the client decides between 126 and 127 by the words; the record keeps the code.
fn start_error(step: &str, status: &tonic::Status) -> ContainerError {
    let text = status.message();
    let has = |part: &str| text.contains(part);
    let mut message = format!("{step}: {text}");
    if !message.ends_with(": unknown") {
        message.push_str(": unknown");
    }
    if has("executable file not found") || has("no such file or directory") {
        return ContainerError::Start { message, exit_code: 127, invalid: true };
    }
    if has("permission denied") || has("is a directory") {
        return ContainerError::Start { message, exit_code: 126, invalid: true };
    }
    if has("not a directory") {
        message.push_str(": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type");
        return ContainerError::Start { message, exit_code: 127, invalid: true };
    }
    ContainerError::Start { message, exit_code: 128, invalid: false }
}

/// Makes a fifo, unless it is there. Blocking.
pub(crate) fn make_fifo(path: &Path) -> Result<(), ContainerError> {
    match nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(error) => Err(ContainerError::kernel(format!("mkfifo {}", path.display()))(error)),
    }
}

/// Deletes task and record below, ending what still lives of it; absence is fine.
pub(super) async fn delete_below(app: &App, id: &str) {
    delete_task(app, id).await;
    delete_record(app, id).await;
}

/// Answers whether there is none any more.
async fn delete_task(app: &App, id: &str) -> bool {
    let task = tasks_api::DeleteTaskRequest { container_id: id.to_owned() };
    let mut deleted = app.containerd.tasks().delete(task.clone()).await;
    if let Err(status) = &deleted
        && status.code() == tonic::Code::FailedPrecondition
    {
        end_below(app, id).await;
        deleted = app.containerd.tasks().delete(task).await;
    }
    is_gone(id, "delete task", deleted.map(drop))
}

/// Answers whether there is none any more. One that comes again after a power failure is in nobody's way:
/// the next start replaces it, and what belongs to no container is swept.
async fn delete_record(app: &App, id: &str) -> bool {
    let record = containers_api::DeleteContainerRequest { id: id.to_owned() };
    let mut record = tonic::Request::new(record);
    record.metadata_mut().insert(proto::namespace::LATER_KEY, MetadataValue::from_static("1"));
    let deleted = app.containerd.containers().delete(record).await;
    is_gone(id, "delete container record", deleted.map(drop))
}

fn is_gone(id: &str, step: &str, deleted: Result<(), tonic::Status>) -> bool {
    match deleted {
        Err(status) if status.code() != tonic::Code::NotFound => {
            tracing::warn!(container = id, "{step}: {}", status.message());
            false
        }
        _ => true,
    }
}

/// Ends a task that nobody wants: one created and never started, or started by an engine that died.
async fn end_below(app: &App, id: &str) {
    let kill = tasks_api::KillRequest {
        container_id: id.to_owned(),
        signal: 9,
        all: true,
        ..tasks_api::KillRequest::default()
    };
    if let Err(status) = app.containerd.tasks().kill(kill).await {
        tracing::warn!(container = id, "kill task: {}", status.message());
    }
    let wait = tasks_api::WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
    if tokio::time::timeout(END, app.containerd.tasks().wait(wait)).await.is_err() {
        tracing::warn!(container = id, "the task does not end");
    }
}

/// A killed process is gone by then, unless the kernel holds it.
const END: std::time::Duration = std::time::Duration::from_secs(10);

/// What becomes of the container's own layer when its run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Keep,
    Remove,
}

/// What became of a release.
#[derive(Clone, Copy, Debug)]
pub(super) struct Released {
    /// Nothing that containerd holds is left of the run; else it is to be released once more.
    pub(super) clean: bool,
    pub(super) layer_gone: bool,
}

/// What is known of the run that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Its process has ended.
    Ended,
    /// It failed somewhere, or an engine died over it: the runtime may still be at work.
    Broken,
}

/// Releases everything a run held; with `Layer::Remove` the layer too, in the same breath. What fails
/// is logged. Nothing is taken from a broken run whose task cannot be deleted now.
pub(super) async fn release(app: &App, container: &Container, run: Run, layer: Layer) -> Released {
    let record = container.record().clone();
    let id = &record.id;
    app.outputs.finish(id).await;
    let is_broken = run == Run::Broken;
    if is_broken && !delete_task(app, id).await {
        // A runtime at work would find its mounts gone, and make in the place below what it misses.
        return Released { clean: false, layer_gone: false };
    }
    // The process is gone, so that neither mount nor network waits for the task's end.
    let (no_task, unmounted, ()) = tokio::join!(
        async { is_broken || span("delete task", delete_task(app, id)).await },
        span("unmount", release_mounts(app, container, &record)),
        span("detach network", async {
            release_networks(app, container, &record).await;
            container.announce(|snapshot| snapshot.held = false);
        }),
    );
    // Compat: told after the network's.
    for mount in unmounted {
        volume_event(app, &record, mount, "unmount", &[]);
    }
    // Nothing of the task runs on; containerd commits both at once.
    let (removed, no_record, ()) = tokio::join!(
        async {
            match layer {
                Layer::Keep => Ok(false),
                Layer::Remove => {
                    span("remove snapshot", rootfs::remove(app, id)).await.map(|()| true)
                }
            }
        },
        span("delete container", delete_record(app, id)),
        release_files(container),
    );
    container.record().attached = None;
    let layer_gone = removed.unwrap_or_else(|error| {
        tracing::warn!(container = id, "{error}");
        false
    });
    Released { clean: no_task && no_record, layer_gone }
}

async fn release_networks(app: &App, container: &Container, record: &Record) {
    if record.networks.is_empty() {
        return;
    }
    let id = &record.id;
    if let Err(error) = app.networks.detach(id).await {
        tracing::warn!(container = id, "detach networks: {error}");
    }
    let netns = container.paths.netns.clone();
    if let Err(error) = blocking(move || Ok(sys::netns::remove(&netns)?)).await {
        tracing::warn!(container = id, "{error}");
    }
}

/// Answers the volumes it had mounted.
async fn release_mounts<'a>(
    app: &App,
    container: &Container,
    record: &'a Record,
) -> Vec<&'a Mounted> {
    let id = &record.id;
    if let Err(error) = rootfs::unmount(&container.paths.rootfs).await {
        tracing::warn!(container = id, "{error}");
    }
    let volumes = || record.mounts.iter().filter(|mount| mount.kind == "volume");
    let mut held = HashSet::new();
    for mount in volumes() {
        // One that is mounted twice is let go by the first of them.
        if app.volumes.unmount(&mount.name, id).await {
            held.insert(&mount.name);
        }
    }
    volumes().filter(|mount| held.contains(&mount.name)).collect()
}

/// Blocking work on what the run left in files.
async fn release_files(container: &Container) {
    let paths = container.paths.clone();
    let cleaned = blocking(move || {
        if paths.shm.exists() {
            sys::mount::unmount(&paths.shm).map_err(ContainerError::kernel("unmount shm"))?;
            drop(std::fs::remove_dir(&paths.shm));
        }
        drop(std::fs::remove_dir_all(&paths.run));
        drop(std::fs::remove_file(&paths.attach));
        Ok(())
    })
    .await;
    if let Err(error) = cleaned {
        tracing::warn!(container = container.id, "{error}");
    }
}
