//! After a restart of the engine: records on disk, merged with what containerd says is alive.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use proto::containerd::services::tasks::v1::ListTasksRequest;
use proto::containerd::v1::types::Status;

use super::driver::{self, Then};
use super::lifecycle::Phase;
use super::output::Fifos;
use super::record::{Paths, Record};
use super::{create, health, start, sweep};
use crate::app::App;
use crate::store::Durability;

/// Puts every container back into the table, running ones watched again.
pub(crate) async fn run(app: &Arc<App>) -> anyhow::Result<()> {
    let dir = app.config.data_root.join("containers");
    let mut records = Vec::new();
    let mut unreadable = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let paths = Paths::new(&app.config.data_root, &app.config.exec_root, &id);
        match Record::read(&paths) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {
                // Half made or half removed: not a container.
                tracing::info!(path = %path.display(), "removing a directory without a record");
                sweep::draft(app, &paths.draft()).await;
                drop(std::fs::remove_dir_all(&path));
            }
            Err(error) => {
                tracing::error!("{error}; the container is left alone");
                unreadable.push(id);
            }
        }
    }
    let layers = sweep::layers(app).await;
    let removed: Vec<Record> = records.extract_if(.., |record| layers.lack(&record.id)).collect();
    if !layers.are_ours() {
        for record in &removed {
            // As dockerd does.
            tracing::error!(container = record.id, "it has no layer; the container is left alone");
            unreadable.push(record.id.clone());
        }
    }
    records.sort_by(|a, b| a.created.cmp(&b.created));
    let tasks: HashMap<String, (u32, Status)> = app
        .containerd
        .tasks()
        .list(ListTasksRequest::default())
        .await
        .map_err(|status| anyhow::anyhow!("list tasks: {}", status.message()))?
        .into_inner()
        .tasks
        .into_iter()
        .map(|task| {
            let id = if task.container_id.is_empty() { task.id } else { task.container_id };
            let status = Status::try_from(task.status).unwrap_or_default();
            (id, (task.pid, status))
        })
        .collect();

    let mut attached = Vec::new();
    for record in &records {
        if tasks.contains_key(&record.id)
            && let Some(own) = &record.attached
        {
            let paths = Paths::new(&app.config.data_root, &app.config.exec_root, &record.id);
            attached.push((create::container_net(record), own.to_attached(), paths.netns));
        }
    }
    for id in &unreadable {
        let request = crate::network::ContainerNet { id: id.clone(), ..Default::default() };
        let paths = Paths::new(&app.config.data_root, &app.config.exec_root, id);
        attached.push((request, crate::network::Attached::default(), paths.netns));
    }
    app.networks.restore(attached).await.context("restore networks")?;

    for record in records {
        for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
            if let Err(error) = app.volumes.acquire(&mount.name, &record.id).await {
                tracing::warn!(container = record.id, "{error}");
            }
            if tasks.contains_key(&record.id)
                && let Err(error) = app.volumes.mount(&mount.name, &record.id).await
            {
                tracing::warn!(container = record.id, "{error}");
            }
        }
        if let Err(error) = app.containers.reserve(&record.name, &record.id) {
            tracing::error!(container = record.id, "{error}");
        }
        let id = record.id.clone();
        let container = app.containers.adopt(app, record);
        let (state, policy, auto_remove) = {
            let record = container.record();
            let policy = record.host_config.restart_policy.name.clone();
            (record.state.clone(), policy, record.host_config.auto_remove)
        };
        if tasks.contains_key(&id) {
            let (uri, fifos) = {
                let record = container.record();
                let fifos = Fifos::new(&container.paths.run, "", record.config.tty);
                (start::log_uri(&container, &record), fifos)
            };
            if let Err(error) = app.outputs.resume(&id, uri, fifos).await {
                tracing::error!(container = id, "its output is not read: {error}");
            }
        }
        let below = tasks.get(&id).filter(|(_, status)| *status != Status::Created);
        match (below, state.phase) {
            // Wait answers at once, with the true time, if it ended meanwhile; a task that is
            // gone answers as not found.
            (_, Phase::Running | Phase::Paused) => {
                driver::watch_exit(app, &container, None);
                container.adopted().await;
            }
            (Some((pid, _)), _) if !state.starting.is_empty() => {
                // The engine died between Start and its record.
                tracing::info!(container = id, "adopting a started task");
                container.note(Durability::Synced, |record| {
                    let policy = record.state.phase == Phase::Restarting;
                    record.state.phase = Phase::Running;
                    record.state.pid = *pid;
                    record.state.exit_code = 0;
                    record.state.error.clear();
                    record.state.started_at = std::mem::take(&mut record.state.starting);
                    record.state.stopped_by_user = false;
                    record.restart_count = if policy { record.restart_count + 1 } else { 0 };
                    record.populated = true;
                    let before = record.state.health.take();
                    record.state.health = health::begin(&record.config, before);
                });
                container.announce(|snapshot| {
                    snapshot.clean = false;
                    snapshot.held = false;
                });
                driver::watch_exit(app, &container, None);
                container.adopted().await;
            }
            (_, phase) => {
                let by_policy =
                    policy == "always" || (policy == "unless-stopped" && !state.stopped_by_user);
                let then = match phase {
                    Phase::Removing | Phase::Dead => Then::Remove { volumes: state.remove_volumes },
                    Phase::Exited if auto_remove => Then::Remove { volumes: true },
                    Phase::Exited if by_policy => Then::Start,
                    _ => Then::Rest,
                };
                container.recover(then).await;
            }
        }
    }
    if layers.are_ours() {
        for record in &removed {
            sweep::removed(app, record).await;
        }
    }
    sweep::run(app, unreadable).await;
    Ok(())
}
