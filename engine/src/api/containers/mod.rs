//! `/containers`.

mod streams;
mod top;

use std::sync::Arc;

use docker_api::container::{
    ContainersPruned, CreateRequest, CreateResponse, UpdateRequest, UpdateResponse,
};
use docker_api::exec::ExecCreateRequest;
use http::StatusCode;
use proto::containerd::services::tasks::v1 as tasks_api;
use trace_log::task::carry;

use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::reply::{self, Reply};
use crate::app::App;
use crate::container::{
    Container, ContainerError, StopOptions, attach, check, create, rootfs, spec, view,
};
use crate::store::Durability;
use crate::trace;

pub(crate) async fn route(app: &Arc<App>, call: Call) -> Result<Reply, ApiError> {
    let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    // Slashes belong to names: no container has one, and the answer says so.
    match (call.method.as_str(), &segments[1..]) {
        ("GET", ["json"]) => list(app, &call).await,
        ("POST", ["create"]) => {
            let asked = app.traces.asked(call.headers());
            trace::request(asked.as_ref(), "create", create(app, call)).await
        }
        ("POST", ["prune"]) => prune(app, &call).await,
        ("DELETE", [_, ..]) => {
            let name = call.name(0);
            if name.is_empty() {
                return Err(ApiError::invalid("invalid name or ID supplied: \"\""));
            }
            let container = app.containers.get(&name)?;
            let (force, volumes) = (call.query.flag("force"), call.query.flag("v"));
            if call.query.flag("link") {
                return Err(ApiError::not_implemented("links are not supported yet"));
            }
            detached(async move { container.remove(force, volumes).await }).await?;
            Ok(reply::no_content())
        }
        ("GET", [_, .., "attach", "ws"]) => {
            app.containers.get(&call.name(2))?;
            Err(ApiError::not_implemented("attach over a websocket is not supported yet"))
        }
        (method, [_, .., verb]) if is_verb(method, verb) => {
            let (method, verb) = (method.to_owned(), (*verb).to_owned());
            let name = call.name(1);
            let container = app.containers.get(&name);
            let container = container.map_err(|error| {
                // Compat: kill alone names what it could not do.
                let mut answer = ApiError::from(error);
                if verb == "kill" {
                    answer.message = format!("cannot kill container: {name}: {}", answer.message);
                }
                answer
            })?;
            one(app, container, &method, &verb, call).await
        }
        _ => Err(ApiError::page_not_found()),
    }
}

/// What can be asked of one container; anything else is no page, whoever is meant.
fn is_verb(method: &str, verb: &str) -> bool {
    let verbs: &[&str] = match method {
        "GET" => &["json", "logs", "top", "stats", "changes", "export", "archive"],
        "HEAD" | "PUT" => &["archive"],
        "POST" => &[
            "start", "stop", "restart", "kill", "pause", "unpause", "rename", "wait", "attach",
            "resize", "update", "exec",
        ],
        _ => &[],
    };
    verbs.contains(&verb)
}

async fn one(
    app: &Arc<App>,
    container: Arc<Container>,
    method: &str,
    verb: &str,
    mut call: Call,
) -> Result<Reply, ApiError> {
    match (method, verb) {
        ("GET", "json") => {
            container.settled().await;
            let mut inspect = view::inspect(app, &container);
            view::project(&mut inspect.network_settings.networks, call.version);
            if call.version.below(48) {
                inspect.image_manifest_descriptor = None;
            }
            if call.query.flag("size") {
                let (rw, root) = rootfs::sizes(app, &container).await;
                inspect.size_rw = Some(rw);
                inspect.size_root_fs = Some(root);
            }
            Ok(reply::ok(&inspect))
        }
        ("GET", "logs") => streams::logs(&container, &call).await,
        ("GET", "top") => top::top(app, &container, &call).await,
        ("GET", "stats" | "changes" | "export" | "archive") | ("HEAD" | "PUT", "archive") => {
            Err(ApiError::not_implemented(format!("containers/{verb} is not supported yet")))
        }
        ("POST", "start") => {
            let body = call.headers().get(http::header::CONTENT_LENGTH);
            let body = body.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            // Compat: up to seven bytes are taken for an empty object.
            if body.is_some_and(|length| length > 7) {
                return Err(ApiError::invalid(
                    "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
                ));
            }
            attach::detach_keys(call.query.get("detachKeys"))?;
            if !call.query.get("checkpoint").is_empty() {
                // Compat: dockerd's words outside its experimental mode.
                return Err(ApiError::invalid("checkpoint is only supported in experimental mode"));
            }
            let asked = app.traces.asked(call.headers());
            let trace = asked.as_ref().inspect(|asked| asked.stays(false));
            let trace = trace.map(|asked| Arc::clone(&asked.trace));
            let started = detached(async move { container.start(trace).await });
            match trace::request(asked.as_ref(), "start", started).await {
                Ok(()) => Ok(reply::no_content()),
                Err(ContainerError::Already) => Err(ApiError::not_modified()),
                Err(error) => Err(error.into()),
            }
        }
        ("POST", "stop") => {
            let options = stop_options(&call)?;
            match detached(async move { container.stop(options).await }).await {
                Ok(()) => Ok(reply::no_content()),
                Err(ContainerError::Already) => Err(ApiError::not_modified()),
                Err(error) => Err(error.into()),
            }
        }
        ("POST", "restart") => {
            let options = stop_options(&call)?;
            let app = Arc::clone(app);
            detached(async move { restart(&app, &container, options).await }).await?;
            Ok(reply::no_content())
        }
        ("POST", "kill") => {
            let text = call.query.get("signal");
            let text = if text.is_empty() { "SIGKILL" } else { text };
            let name = call.segments[1].as_str();
            let signal = crate::sys::signal::parse(text).ok_or_else(|| {
                ApiError::invalid(match text.parse::<i64>() {
                    Ok(number) if number != 0 => format!(
                        "cannot kill container: {name}: the linux daemon does not support signal {number}"
                    ),
                    _ => format!("Invalid signal: {text}"),
                })
            })?;
            kill(&container, signal).await.map_err(|error| match error {
                ContainerError::Conflict(text) => {
                    ApiError::conflict(format!("cannot kill container: {name}: {text}"))
                }
                other => other.into(),
            })?;
            Ok(reply::no_content())
        }
        ("POST", "pause") => {
            detached(async move { container.pause().await }).await?;
            Ok(reply::no_content())
        }
        ("POST", "unpause") => {
            detached(async move { container.unpause().await }).await?;
            Ok(reply::no_content())
        }
        ("POST", "rename") => {
            create::rename(app, &container, call.query.get("name"))?;
            Ok(reply::no_content())
        }
        ("POST", "wait") => {
            if let Some(asked) = app.traces.asked(call.headers()) {
                asked.stays(true);
            }
            streams::wait(&container, &call).await
        }
        ("POST", "attach") => {
            let asked = app.traces.asked(call.headers());
            let attached = streams::attach(app, container, call);
            trace::request(asked.as_ref(), "attach", attached).await
        }
        ("POST", "resize") => resize(app, &container, &call).await,
        ("POST", "update") => {
            let request: UpdateRequest = call.json().await?;
            update(app, &container, request).await
        }
        ("POST", "exec") => {
            let request: ExecCreateRequest = call.json().await?;
            let id = app.execs.create(app, &container, request)?;
            Ok(reply::json(StatusCode::CREATED, &serde_json::json!({"Id": id})))
        }
        _ => Err(ApiError::page_not_found()),
    }
}

/// Work that goes on when the client hangs up.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ContainerError>> + Send + 'static,
) -> Result<T, ContainerError> {
    tokio::spawn(carry(work)).await.map_err(|_| ContainerError::OwnerGone)?
}

async fn list(app: &App, call: &Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    let limit = match call.query.get("limit") {
        "" => 0,
        text => text.parse::<i64>().map_err(|_| {
            ApiError::invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"))
        })?,
    };
    let limit = usize::try_from(limit).unwrap_or_default();
    let mut rows = view::list(app, call.query.flag("all"), limit, &filters, call.version)?;
    if call.query.flag("size") {
        for row in &mut rows {
            if let Ok(container) = app.containers.get(&row.id) {
                let (rw, root) = rootfs::sizes(app, &container).await;
                row.size_rw = Some(rw);
                row.size_root_fs = Some(root);
            }
        }
    }
    Ok(reply::ok(&rows))
}

async fn create(app: &Arc<App>, mut call: Call) -> Result<Reply, ApiError> {
    let request: CreateRequest = call.json().await?;
    if request.config == docker_api::container::Config::default() && request.host_config.is_none() {
        return Err(ApiError::invalid("config cannot be empty in order to create a container"));
    }
    let name = call.query.get("name").to_owned();
    let platform = call.query.get("platform").to_owned();
    let version = call.version;
    let app = Arc::clone(app);
    let made = async move { create::create(&app, &name, &platform, request, version).await };
    let (container, warnings) = detached(made).await?;
    let answer = CreateResponse { id: container.id.clone(), warnings };
    Ok(reply::json(StatusCode::CREATED, &answer))
}

fn stop_options(call: &Call) -> Result<StopOptions, ApiError> {
    let timeout = match call.query.get("t") {
        "" => None,
        text => Some(text.parse::<i64>().map_err(|_| {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let reason = if number { "value out of range" } else { "invalid syntax" };
            ApiError::invalid(format!("strconv.Atoi: parsing \"{text}\": {reason}"))
        })?),
    };
    let signal = call.query.get("signal");
    let signal = (!signal.is_empty() && !call.version.below(42)).then(|| signal.to_owned());
    Ok(StopOptions { signal, timeout })
}

async fn restart(
    app: &App,
    container: &Container,
    options: StopOptions,
) -> Result<(), ContainerError> {
    // An auto-remove container survives its restart.
    let auto_remove = std::mem::take(&mut container.record().host_config.auto_remove);
    let stopped = container.stop(options).await;
    container.record().host_config.auto_remove = auto_remove;
    match stopped {
        Ok(()) | Err(ContainerError::Already) => {}
        Err(error) => return Err(error),
    }
    match container.start(None).await {
        Ok(()) | Err(ContainerError::Already) => {}
        Err(error) => return Err(error),
    }
    container.event(app, "restart", &[]);
    Ok(())
}

/// Compat: SIGKILL answers when the process is gone and what it held is free.
async fn kill(container: &Container, signal: i32) -> Result<(), ContainerError> {
    let mut state = container.state.subscribe();
    let exits = state.borrow().exits;
    container.signal(signal).await?;
    if signal == 9 {
        let gone =
            state.wait_for(|now| !now.held && (now.exits > exits || !now.phase.has_process()));
        drop(tokio::time::timeout(std::time::Duration::from_secs(10), gone).await);
    }
    Ok(())
}

/// `w` and `h`, as numbers.
pub(crate) fn size(call: &Call) -> Result<(u32, u32), ApiError> {
    let number = |key: &str| {
        let text = call.query.get(key);
        text.parse::<u32>().map_err(|_| {
            ApiError::invalid(format!(
                "invalid resize {} \"{text}\": invalid syntax",
                if key == "w" { "width" } else { "height" }
            ))
        })
    };
    // Compat: the height is looked at first.
    let height = number("h")?;
    Ok((number("w")?, height))
}

async fn resize(app: &App, container: &Container, call: &Call) -> Result<Reply, ApiError> {
    let (width, height) = size(call)?;
    if !container.phase().has_process() {
        return Err(ApiError::conflict(format!("container {} is not running", container.id)));
    }
    let request = tasks_api::ResizePtyRequest {
        container_id: container.id.clone(),
        exec_id: String::new(),
        width,
        height,
    };
    app.containerd.tasks().resize_pty(request).await?;
    container.event(app, "resize", &[("height", height.to_string()), ("width", width.to_string())]);
    Ok(super::status(StatusCode::OK))
}

async fn update(
    app: &Arc<App>,
    container: &Container,
    request: UpdateRequest,
) -> Result<Reply, ApiError> {
    let mut host = container.record().host_config.clone();
    if !request.restart_policy.name.is_empty() {
        if host.auto_remove {
            return Err(ApiError::invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        host.restart_policy = request.restart_policy;
    }
    let new = request.resources;
    let none = docker_api::container::Resources::default();
    let own = &mut host.resources;
    macro_rules! take {
        ($($field:ident),*) => { $( if new.$field != none.$field { own.$field = new.$field; } )* };
    }
    take!(
        cpu_shares,
        memory,
        nano_cpus,
        blkio_weight,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        cpuset_mems,
        memory_reservation,
        memory_swap,
        pids_limit
    );
    let warnings = check::update(&mut host)?;
    if container.phase().has_process() {
        let limits = spec::limits(&host)?;
        let json = serde_json::to_vec(&limits).unwrap_or_default();
        let request = tasks_api::UpdateTaskRequest {
            container_id: container.id.clone(),
            resources: Some(proto::any::pack_json(proto::any::TYPE_LINUX_RESOURCES, json)),
            ..tasks_api::UpdateTaskRequest::default()
        };
        app.containerd.tasks().update(request).await?;
    }
    container.change(Durability::Synced, |record| record.host_config = host)?;
    container.event(app, "update", &[]);
    Ok(reply::ok(&UpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) }))
}

async fn prune(app: &Arc<App>, call: &Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.only(&["until", "label", "label!"])?;
    let until = super::until(&filters)?;
    let mut answer = ContainersPruned::default();
    for container in app.containers.all() {
        let (phase, created, labels) = {
            let record = container.record();
            (
                record.state.phase,
                record.created.clone(),
                record.config.labels.clone().unwrap_or_default(),
            )
        };
        let (created, _) = docker_api::time::parse_rfc3339(&created).unwrap_or_default();
        let unwanted = filters.get("label!").any(|label| match label.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|own| own == value),
            None => labels.contains_key(label),
        });
        if phase.is_running()
            || until.is_some_and(|until| created >= until)
            || !filters.labels("label", &labels)
            || unwanted
        {
            continue;
        }
        let (size, _) = rootfs::sizes(app, &container).await;
        let id = container.id.clone();
        match detached(async move { container.remove(false, false).await }).await {
            Ok(()) => {
                answer.containers_deleted.get_or_insert_default().push(id);
                answer.space_reclaimed += u64::try_from(size).unwrap_or_default();
            }
            Err(error) => tracing::warn!(container = id, "prune: {error}"),
        }
    }
    let space = std::collections::BTreeMap::from([(
        "reclaimed".to_owned(),
        answer.space_reclaimed.to_string(),
    )]);
    app.events.publish("container", "prune", "", space);
    Ok(reply::ok(&answer))
}
