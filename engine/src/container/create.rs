//! `POST /containers/create`: check, merge with the image, give a name, prepare the snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use docker_api::container::{Config, CreateRequest, HostConfig};
use docker_api::volume::VolumeCreateRequest;
use trace_log::task::span;

use super::record::{Mounted, Record, VERSION};
use super::{Container, ContainerError, check, mounts, names, rootfs, spec};
use crate::app::App;
use crate::apparmor;
use crate::image::ImageError;
use crate::network::ContainerNet;
use crate::store::{self, Durability};
use crate::sys;

/// Makes a container; answers it and warnings.
pub(crate) async fn create(
    app: &Arc<App>,
    name: &str,
    platform: &str,
    request: CreateRequest,
    version: docker_api::version::ApiVersion,
) -> Result<(Arc<Container>, Vec<String>), ContainerError> {
    let mut config = request.config;
    let mut host = request.host_config.unwrap_or_default();
    let networking = request.networking_config.unwrap_or_default();
    if config.image.is_empty() {
        // Compat: dockerd's words.
        return Err(
            ContainerError::Invalid("no image specified".to_owned()).into_empty_image(&config)
        );
    }
    let image = match span("image", app.images.resolve(&config.image, platform)).await {
        Err(ImageError::NotFound(_)) => {
            return Err(ImageError::NotFound(with_tag(&config.image)).into());
        }
        other => other?,
    };
    merge(&mut config, &image.config);
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty)
        && config.cmd.as_ref().is_none_or(Vec::is_empty)
    {
        return Err(ContainerError::Invalid("no command specified".to_owned()));
    }
    let mut warnings = Vec::new();
    check::check(app, &config, &mut host, &mut warnings)?;
    if !version.below(44) && config.mac_address.as_ref().is_some_and(|mac| !mac.is_empty()) {
        warnings.push("The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.".to_owned());
    }
    defaults(app, &mut host);
    joined(app, &mut host)?;

    let id = sys::dirs::random_id()
        .map_err(|error| ContainerError::Invalid(format!("random bytes: {error}")))?;
    if config.hostname.is_empty() {
        config.hostname = match host.network_mode.as_str() {
            "host" => nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            _ => id[..12].to_owned(),
        };
    }
    let mut words = config.entrypoint.clone().unwrap_or_default();
    words.extend(config.cmd.clone().unwrap_or_default());
    let path = if words.is_empty() { String::new() } else { words.remove(0) };
    let mut record = Record {
        version: VERSION,
        id: id.clone(),
        created: now(),
        path,
        args: words,
        image_id: image.id.clone(),
        chain_id: image.chain_id.clone(),
        manifest: image.manifest.clone(),
        mounts: mounts::collect(&config, &host, inherited(app, &host)?)?,
        config,
        host_config: host,
        ..Record::default()
    };
    record.apparmor = apparmor::named(&record.host_config).unwrap_or_default().to_owned();
    record.state.started_at = docker_api::time::ZERO.to_owned();
    record.state.finished_at = docker_api::time::ZERO.to_owned();
    record.networks = wanted_networks(&record, networking.endpoints_config)?;
    if version.below(44) && record.networks.len() > 1 {
        let names: Vec<&str> = record.networks.keys().map(String::as_str).collect();
        return Err(ContainerError::Invalid(format!(
            "Container cannot be connected to network endpoints: {}",
            names.join(", ")
        )));
    }
    if !record.networks.is_empty() {
        record.networks = app.networks.check(&container_net(&record)).await?;
    }
    // A dry run of the specification finds what is wrong with the request now.
    spec::check(&record, &app.config)?;

    record.name = take_name(app, name, &id)?;
    match finish(app, record).await {
        Ok(container) => {
            container.event(app, "create", &[]);
            Ok((container, warnings))
        }
        Err((name, error)) => {
            app.containers.release(&name, &id);
            Err(error)
        }
    }
}

impl ContainerError {
    /// Compat: dockerd complains of the command first when neither is there.
    fn into_empty_image(self, config: &Config) -> Self {
        if config.cmd.is_none() && config.entrypoint.is_none() {
            return Self::Invalid("no command specified".to_owned());
        }
        self
    }
}

/// What must be undone when it fails.
async fn finish(
    app: &Arc<App>,
    mut record: Record,
) -> Result<Arc<Container>, (String, ContainerError)> {
    let name = record.name.clone();
    let id = record.id.clone();
    let paths = super::Paths::new(&app.config.data_root, &app.config.exec_root, &id);
    let mut acquired: Vec<Mounted> = Vec::new();
    let made = async {
        sys::dirs::make(&paths.dir, 0o710)
            .map_err(|error| ContainerError::System(format!("{error:#}")))?;
        let mut anonymous = Vec::new();
        for mount in record.mounts.iter_mut().filter(|mount| mount.anonymous) {
            if mount.name.is_empty() {
                mount.name = sys::dirs::random_id()
                    .map_err(|error| ContainerError::Invalid(format!("random bytes: {error}")))?;
            }
            anonymous.push(mount.name.clone());
        }
        if !anonymous.is_empty() {
            // Whoever finds a volume finds this, also after a power cut.
            store::write(&paths.draft(), &anonymous, Durability::Synced)?;
        }
        span("snapshot", rootfs::prepare(app, &id, &record.chain_id)).await?;
        for mount in record.mounts.iter_mut().filter(|mount| mount.kind == "volume") {
            let mut labels = mount.labels.clone();
            if mount.anonymous {
                labels
                    .get_or_insert_default()
                    .insert("com.docker.volume.anonymous".to_owned(), String::new());
            }
            let volume = app
                .volumes
                .create(VolumeCreateRequest {
                    name: mount.name.clone(),
                    driver: mount.driver.clone(),
                    driver_opts: mount.driver_opts.clone(),
                    labels,
                })
                .await?;
            mount.name = volume.name;
            mount.source = volume.mountpoint;
            app.volumes.acquire(&mount.name, &id).await?;
            acquired.push(mount.clone());
        }
        // `--rm` containers are not worth a sync, unless their volumes would outlive them.
        let brief = record.host_config.auto_remove && anonymous.is_empty();
        let durability = if brief { Durability::Written } else { Durability::Synced };
        span("record", async { record.write(&paths, durability) }).await?;
        if !anonymous.is_empty() {
            drop(std::fs::remove_file(paths.draft()));
        }
        Ok(())
    }
    .await;
    match made {
        Ok(()) => Ok(app.containers.adopt(app, record)),
        Err(error) => {
            for mount in acquired {
                app.volumes.release(&mount.name, &id).await;
                if mount.anonymous {
                    drop(app.volumes.remove(&mount.name, true).await);
                }
            }
            drop(std::fs::remove_dir_all(&paths.dir));
            if rootfs::remove(app, &id).await.is_err() {
                rootfs::remove_later(app, id);
            }
            Err((name, error))
        }
    }
}

fn take_name(app: &App, wanted: &str, id: &str) -> Result<String, ContainerError> {
    if !wanted.is_empty() {
        let given = wanted;
        let wanted = given.strip_prefix('/').unwrap_or(given);
        if !names::is_valid(wanted) {
            return Err(ContainerError::BadName(given.to_owned()));
        }
        app.containers.reserve(wanted, id)?;
        return Ok(wanted.to_owned());
    }
    for attempt in 0..6 {
        let name = names::generate(attempt);
        if app.containers.reserve(&name, id).is_ok() {
            return Ok(name);
        }
    }
    let name = id[..12].to_owned();
    app.containers.reserve(&name, id)?;
    Ok(name)
}

/// Renames; the new name is taken before the old one is given back.
pub(crate) fn rename(app: &App, container: &Container, name: &str) -> Result<(), ContainerError> {
    let old = container.record().name.clone();
    if name.is_empty() {
        return Err(ContainerError::Invalid("Neither old nor new names may be empty".to_owned()));
    }
    let name = name.strip_prefix('/').unwrap_or(name);
    if name == old {
        return Err(ContainerError::Invalid(
            "Renaming a container with the same name as its current name".to_owned(),
        ));
    }
    if !names::is_valid(name) {
        // Compat: rename shows the name as it keeps it.
        let error = ContainerError::BadName(format!("/{name}"));
        return Err(ContainerError::Invalid(format!("Error when allocating new name: {error}")));
    }
    app.containers.reserve(name, &container.id).map_err(|error| {
        ContainerError::Conflict(format!("Error when allocating new name: {error}"))
    })?;
    if let Err(error) = container.change(Durability::Synced, |record| record.name = name.to_owned())
    {
        app.containers.release(name, &container.id);
        return Err(error);
    }
    app.containers.release(&old, &container.id);
    container.event(app, "rename", &[("oldName", format!("/{old}"))]);
    Ok(())
}

/// What networking needs to know of a container.
pub(crate) fn container_net(record: &Record) -> ContainerNet {
    let mut bindings = record.host_config.port_bindings.clone().unwrap_or_default();
    let exposed: Vec<String> =
        record.config.exposed_ports.iter().flatten().map(|(port, _)| port.clone()).collect();
    if record.host_config.publish_all_ports {
        for port in &exposed {
            bindings
                .entry(port.clone())
                .or_insert_with(|| Some(vec![docker_api::network::PortBinding::default()]));
        }
    }
    ContainerNet {
        id: record.id.clone(),
        name: record.name.clone(),
        hostname: record.config.hostname.clone(),
        domainname: record.config.domainname.clone(),
        networks: record.networks.clone(),
        port_bindings: bindings,
        exposed,
    }
}

/// User over image.
fn merge(config: &mut Config, image: &Config) {
    let image = image.clone();
    if config.user.is_empty() {
        config.user = image.user;
    }
    if let Some(ports) = image.exposed_ports {
        config.exposed_ports.get_or_insert_default().extend(ports);
    }
    let mut env = config.env.take().unwrap_or_default();
    for pair in image.env.into_iter().flatten() {
        let key = pair.split('=').next().unwrap_or_default();
        if !env.iter().any(|own| own.split('=').next() == Some(key)) {
            env.push(pair);
        }
    }
    config.env = Some(env);
    for (key, value) in image.labels.into_iter().flatten() {
        config.labels.get_or_insert_default().entry(key).or_insert(value);
    }
    config.labels.get_or_insert_default();
    // Compat: a given entrypoint drops the image's command; an empty one clears it.
    let given_entrypoint = config.entrypoint.is_some();
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = Some(vec![]);
    }
    if !given_entrypoint {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd = image.cmd;
        }
        config.entrypoint = image.entrypoint;
    }
    if config.entrypoint.as_ref().is_some_and(Vec::is_empty) {
        config.entrypoint = None;
    }
    match (&mut config.healthcheck, image.healthcheck) {
        (Some(own), Some(theirs)) => {
            own.test = own.test.take().filter(|test| !test.is_empty()).or(theirs.test);
            // Compat: zero says nothing.
            let or = |own: Option<i64>, theirs| own.filter(|value| *value != 0).or(theirs);
            own.interval = or(own.interval, theirs.interval);
            own.timeout = or(own.timeout, theirs.timeout);
            own.start_period = or(own.start_period, theirs.start_period);
            own.start_interval = or(own.start_interval, theirs.start_interval);
            own.retries = or(own.retries, theirs.retries);
        }
        (own @ None, theirs) => *own = theirs,
        (Some(_), None) => {}
    }
    if config.working_dir.is_empty() {
        config.working_dir = image.working_dir;
    }
    if let Some(volumes) = image.volumes {
        config.volumes.get_or_insert_default().extend(volumes);
    }
    config.volumes = config.volumes.take().filter(|volumes| !volumes.is_empty());
    config.stop_signal = config.stop_signal.take().or(image.stop_signal);
    config.shell = config.shell.take().or(image.shell);
}

fn defaults(app: &App, host: &mut HostConfig) {
    let cgroup2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".to_owned();
    }
    if host.ipc_mode.is_empty() {
        host.ipc_mode = app.config.default_ipc_mode.clone();
    }
    if host.cgroupns_mode.is_empty() {
        host.cgroupns_mode = if app.config.default_cgroupns_mode.is_empty() {
            if cgroup2 && !host.privileged { "private" } else { "host" }.to_owned()
        } else {
            app.config.default_cgroupns_mode.clone()
        };
    }
    if host.shm_size == 0 {
        host.shm_size = app.config.default_shm_size;
    }
    if host.log_config.kind.is_empty() {
        host.log_config.kind = app.config.log_driver.clone();
        if host.log_config.config.is_empty() {
            host.log_config.config = app.config.log_opts.clone();
        }
    }
    if host.restart_policy.name.is_empty() {
        host.restart_policy.name = "no".to_owned();
    }
    host.runtime.get_or_insert_with(|| app.config.default_runtime.clone());
    if !host.privileged {
        host.masked_paths.get_or_insert_with(spec::default_masked_paths);
        host.readonly_paths.get_or_insert_with(spec::default_readonly_paths);
    }
    // Compat: without a namespace of its own a container cannot have a label of its own.
    let unlabelled = host.privileged || host.ipc_mode == "host" || host.pid_mode == "host";
    let mut options = host.security_opt.iter().flatten();
    if unlabelled && !options.any(|option| option.starts_with("label")) {
        host.security_opt.get_or_insert_default().push("label=disable".to_owned());
    }
    let resources = &mut host.resources;
    if resources.memory > 0 && resources.memory_swap == 0 {
        resources.memory_swap = resources.memory.saturating_mul(2);
    }
    if resources.pids_limit.is_some_and(|limit| limit <= 0) {
        resources.pids_limit = None;
    }
    // Compat: shown as given, where the kernel can.
    if !cgroup2 {
        resources.oom_kill_disable.get_or_insert(false);
    }
    host.console_size.get_or_insert([0, 0]);
}

/// The containers whose namespaces are joined, by their ids.
fn joined(app: &App, host: &mut HostConfig) -> Result<(), ContainerError> {
    for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
        if let Some(name) = mode.strip_prefix("container:") {
            // Compat: dockerd answers 400 here; 404 would mean the image.
            let other = app.containers.get(name);
            let other = other.map_err(|error| ContainerError::Invalid(error.to_string()))?;
            *mode = format!("container:{}", other.id);
        }
    }
    // Compat: a missing one shows at start.
    if let Some(name) = host.network_mode.strip_prefix("container:")
        && let Ok(other) = app.containers.get(name)
    {
        host.network_mode = format!("container:{}", other.id);
    }
    Ok(())
}

fn inherited(app: &App, host: &HostConfig) -> Result<Vec<Mounted>, ContainerError> {
    let mut all = Vec::new();
    for text in host.volumes_from.iter().flatten() {
        if text.is_empty() {
            return Err(ContainerError::Invalid(
                "volumes-from specification cannot be an empty string".to_owned(),
            ));
        }
        let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
        if mode.split(',').any(|word| !matches!(word, "ro" | "rw" | "z" | "Z" | "nocopy")) {
            return Err(ContainerError::Invalid(format!("invalid mode: {mode}")));
        }
        // Compat: dockerd answers 400 here; 404 would mean the image.
        let from = app.containers.get(name);
        let from = from.map_err(|error| ContainerError::Invalid(error.to_string()))?;
        for mut mount in from.record().mounts.clone() {
            mount.rw = mount.rw && !mode.split(',').any(|word| word == "ro");
            mount.anonymous = false;
            all.push(mount);
        }
    }
    Ok(all)
}

fn wanted_networks(
    record: &Record,
    given: Option<BTreeMap<String, Option<docker_api::network::EndpointSettings>>>,
) -> Result<BTreeMap<String, docker_api::network::EndpointSettings>, ContainerError> {
    let mode = record.host_config.network_mode.as_str();
    if mode == "host"
        || mode.starts_with("container:")
        || record.config.network_disabled == Some(true)
    {
        return Ok(BTreeMap::new());
    }
    let mut wanted: BTreeMap<_, _> = given
        .unwrap_or_default()
        .into_iter()
        .map(|(name, settings)| {
            let name = if name == "default" { "bridge".to_owned() } else { name };
            (name, settings.unwrap_or_default())
        })
        .collect();
    if mode == "none" {
        wanted.clear();
        return Ok(wanted);
    }
    let main = wanted.entry(mode.to_owned()).or_default();
    if let Some(mac) = &record.config.mac_address
        && main.mac_address.is_empty()
    {
        main.mac_address = mac.clone();
    }
    Ok(wanted)
}

/// Compat: dockerd names the missing image with its tag.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if last.contains(':') || name.contains('@') || is_id {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

/// The present, as records hold it.
pub(crate) fn now() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
    docker_api::time::rfc3339_nano(seconds, i32::try_from(now.subsec_nanos()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn a_given_entrypoint_drops_the_images_command() {
        let image = Config { cmd: words("sh"), entrypoint: words("init"), ..Config::default() };
        let mut config = Config { entrypoint: words("mine"), ..Config::default() };
        merge(&mut config, &image);
        assert_eq!((config.entrypoint, config.cmd), (words("mine"), None));
        let mut config = Config { cmd: words("ls -l"), ..Config::default() };
        merge(&mut config, &image);
        assert_eq!((config.entrypoint, config.cmd), (words("init"), words("ls -l")));
    }

    #[test]
    fn user_environment_comes_first_and_wins() {
        let image = Config { env: words("PATH=/bin A=1"), ..Config::default() };
        let mut config = Config { env: words("A=2"), ..Config::default() };
        merge(&mut config, &image);
        assert_eq!(config.env, words("A=2 PATH=/bin"));
    }

    #[test]
    fn a_missing_image_is_named_with_its_tag() {
        assert_eq!(with_tag("x/nope"), "x/nope:latest");
        assert_eq!(with_tag("nope:1"), "nope:1");
    }
}
