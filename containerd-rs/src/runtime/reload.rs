//! Finding tasks again after our own restart.
//!
//! Every bundle on disk is looked at in parallel. A shim that takes the connection is alive, and its task is
//! adopted; one that then says it has no such container is ended. A shim that is gone is cleaned up after
//! with its own binary, and its container's end is told. A shim that takes the connection and says nothing
//! (stopped, starved) is adopted too: silence is not death.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::containerd::v1::types::Status;
use proto::errdefs::Kind;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::bootstrap::Bootstrap;
use super::bundle::{Bundle, DIRECTORY};
use super::shim::Shim;
use super::task::{Exit, Task};
use super::{Inner, Runtime, TaskError, TaskKey, name, now};

/// Start-up waits this long for all of them; the slow ones go on in the background.
const LIMIT: Duration = Duration::from_secs(5);
/// A healthy shim answers in well under this.
const PROMPT: Duration = Duration::from_millis(500);
/// A slow one is asked once more, in the background.
const PATIENT: Duration = Duration::from_secs(60);

impl Runtime {
    /// Finds all tasks again. To be awaited before the socket listens.
    pub(crate) async fn reload(&self) {
        let state = self.inner.state.join(DIRECTORY);
        let walk = move || bundles(&state);
        let keys = match tokio::task::spawn_blocking(walk).await {
            Ok(Ok(keys)) => keys,
            Ok(Err(error)) => return warn!(%error, "look for bundles"),
            Err(error) => return warn!(%error, "look for bundles"),
        };
        let found = keys.len();
        let mut under_way = Vec::with_capacity(found);
        for key in keys {
            if self.inner.reserve(&key).is_err() {
                continue;
            }
            under_way.push(self.inner.tasks.spawn(Arc::clone(&self.inner).recover(key)));
        }
        let all = futures_util::future::join_all(under_way);
        if timeout(LIMIT, all).await.is_err() {
            warn!("some shims are slow to be found again; going on without them");
        }
        if found > 0 {
            info!(bundles = found, "tasks found again");
        }
        self.inner.sweep().await;
    }
}

impl Inner {
    async fn recover(self: Arc<Self>, key: TaskKey) {
        let bundle = Bundle::locate(&self.root, &self.state, &key);
        let binary = bundle.shim().map_or_else(|| self.resolver.resolve(name::STOCK), Ok);
        let binary = match binary {
            Ok(binary) => binary,
            Err(error) => {
                warn!(namespace = key.namespace, container = key.id, %error, "bundle without a shim");
                PathBuf::new()
            }
        };
        let shim = match reconnect(&bundle, &key).await {
            Ok(shim) => shim,
            Err(error) => {
                warn!(namespace = key.namespace, container = key.id, %error, "shim is lost");
                return self.clean(&key, &bundle, &binary).await;
            }
        };
        match shim.state("", PROMPT).await {
            Err(TaskError::ShimGone) => return self.clean(&key, &bundle, &binary).await,
            Err(error) if error.kind() == Kind::NotFound => {
                info!(
                    namespace = key.namespace,
                    container = key.id,
                    "shim without a task is ended"
                );
                shim.shutdown(true).await.ok();
                return self.clean(&key, &bundle, &binary).await;
            }
            state => {
                let log = self.read_log(&bundle, &key);
                let init = bundle.init_pid().unwrap_or_default();
                let task = Task::new(key, bundle, binary, shim, Some(log));
                task.note_pid("", init);
                match state {
                    Ok(state) => {
                        debug!(container = task.key().id, pid = state.pid, "task adopted");
                        task.note_pid("", state.pid);
                        if state.status() == Status::Stopped {
                            let (pid, status) = (state.pid, state.exit_status);
                            task.note_exit("", Exit { pid, status, at: state.exited_at });
                        }
                        self.adopt(&task);
                    }
                    Err(error) => {
                        warn!(container = task.key().id, %error, "shim is alive and silent");
                        self.adopt(&task);
                        self.tasks.spawn(ask_again(task));
                    }
                }
            }
        }
    }

    /// Ends what a lost shim left, tells how, and removes the bundle.
    async fn clean(&self, key: &TaskKey, bundle: &Bundle, binary: &Path) {
        let pid = bundle.init_pid();
        let exit = match self.caller.delete(binary, &bundle.path, key).await {
            Ok(answer) => Exit::from(answer),
            Err(error) => {
                warn!(namespace = key.namespace, container = key.id, %error, "shim delete");
                Exit { pid: 0, status: 255, at: Some(now()) }
            }
        };
        let pid = if exit.pid == 0 { pid.unwrap_or_default() } else { exit.pid };
        let exit = Exit { pid, ..exit };
        self.publish_exit(key, "", &exit);
        self.remove_bundle(key, bundle).await;
        self.ends.note(key, exit);
        self.forget(key);
        self.publish_delete(key, &exit);
    }

    /// Removes work directories that no task has.
    async fn sweep(&self) {
        let (root, state) = (self.root.join(DIRECTORY), self.state.join(DIRECTORY));
        let work = move || {
            for key in bundles(&root).unwrap_or_default() {
                let place = |top: &Path| top.join(&key.namespace).join(&key.id);
                if !place(&state).exists() {
                    fs::remove_dir_all(place(&root)).ok();
                }
            }
        };
        tokio::task::spawn_blocking(work).await.ok();
    }
}

async fn reconnect(bundle: &Bundle, key: &TaskKey) -> Result<Shim, TaskError> {
    let failed = |source| TaskError::Bundle { step: "read", path: bundle.path.clone(), source };
    let missing = || TaskError::NoAddress { id: key.id.clone() };
    let bootstrap = Bootstrap::load(&bundle.path).map_err(failed)?.ok_or_else(missing)?;
    Shim::connect(bootstrap, key.clone()).await
}

/// A shim that was silent at reload may have had no task, or one that has ended.
async fn ask_again(task: Arc<Task>) {
    match task.shim().state("", PATIENT).await {
        Ok(state) => {
            task.note_pid("", state.pid);
            if state.status() == Status::Stopped {
                let (pid, status) = (state.pid, state.exit_status);
                task.note_exit("", Exit { pid, status, at: state.exited_at });
            }
        }
        Err(error) if error.kind() == Kind::NotFound => {
            // The owner's Delete meets the same answer and takes it all down.
            task.delete().await.ok();
        }
        Err(error) => {
            warn!(container = task.key().id, %error, "shim is still silent");
        }
    }
}

/// `<top>/<namespace>/<id>`; removes what an interrupted removal left under a hidden name.
fn bundles(top: &Path) -> std::io::Result<Vec<TaskKey>> {
    let mut keys = Vec::new();
    for namespace in directories(top)? {
        for id in directories(&top.join(&namespace))? {
            if id.starts_with('.') {
                // Never followed by a mount: its rootfs was unmounted and removed before the renaming.
                fs::remove_dir_all(top.join(&namespace).join(&id)).ok();
            } else {
                keys.push(TaskKey { namespace: namespace.clone(), id });
            }
        }
    }
    Ok(keys)
}

fn directories(path: &Path) -> std::io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let directory = entry.file_type().ok()?.is_dir();
        directory.then(|| entry.file_name().into_string().ok()).flatten()
    });
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_found_and_hidden_remains_removed() {
        let top = tempfile::tempdir().unwrap();
        for path in ["ns/a", "ns/b", "other/c", "ns/.gone/x"] {
            fs::create_dir_all(top.path().join(path)).unwrap();
        }
        fs::write(top.path().join("ns/file"), "").unwrap();
        let mut found = bundles(top.path()).unwrap();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let names: Vec<_> =
            found.iter().map(|key| format!("{}/{}", key.namespace, key.id)).collect();
        assert_eq!(names, ["ns/a", "ns/b", "other/c"]);
        assert!(!top.path().join("ns/.gone").exists());
        assert_eq!(bundles(&top.path().join("none")).unwrap(), []);
    }
}
