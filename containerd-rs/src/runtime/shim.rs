//! A shim: its binary (`start`, `delete`) and its ttrpc task service, version 3 or 2.
//!
//! Protocol: containerd `core/runtime/v2/README.md`. `start` gets the flags and environment of every containerd
//! since 1.6, and on stdin the runtime options as an `Any`, as 1.6 to 2.2 send them. A shim that wants the
//! `BootstrapParams` of 2.3 instead refuses that by name and is started again with them.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use proto::containerd::runtime::bootstrap::v1::{BootstrapParams, Extension};
use proto::containerd::task::v2 as wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tracing::{debug, warn};
use ttrpc_wire::{CallError, Client, Code, NAMESPACE_KEY};

use super::bootstrap::Bootstrap;
use super::pulse::{Pulse, Silent};
use super::{TaskError, TaskKey};

/// What every invocation of a shim's binary needs to know of us.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Our gRPC socket.
    pub(crate) address: String,
    /// Where shims hand in events.
    pub(crate) ttrpc_address: String,
    /// Our own binary, for shims old enough to call it.
    pub(crate) publish_binary: PathBuf,
    pub(crate) debug: bool,
}

/// `start` waits for no container, so it is short; a loaded machine gets its time all the same.
const START: Duration = Duration::from_secs(60);
/// `delete` runs the OCI runtime.
const DELETE: Duration = Duration::from_secs(20);
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// Output of a shim's binary that is kept.
const OUTPUT: u64 = 64 << 10;

impl Caller {
    /// Runs `binary start` in `bundle`.
    pub(crate) async fn start(
        &self,
        binary: &Path,
        bundle: &Path,
        key: &TaskKey,
        options: Option<&Any>,
    ) -> Result<Bootstrap, TaskError> {
        let input = options.map(Message::encode_to_vec).unwrap_or_default();
        let output = match self.run(binary, bundle, key, "start", &input, START).await {
            Err(TaskError::ShimFailed { output, .. }) if wants_parameters(&output) => {
                debug!(container = key.id, shim = %binary.display(), "shim wants bootstrap parameters");
                let parameters = self.parameters(key, options).encode_to_vec();
                self.run(binary, bundle, key, "start", &parameters, START).await?
            }
            other => other?,
        };
        Bootstrap::parse(&output)
    }

    /// Runs `binary delete`, which ends whatever is left of the container and tells how it ended.
    pub(crate) async fn delete(
        &self,
        binary: &Path,
        bundle: &Path,
        key: &TaskKey,
    ) -> Result<wire::DeleteResponse, TaskError> {
        let output = self.run(binary, bundle, key, "delete", &[], DELETE).await?;
        wire::DeleteResponse::decode(output.as_slice()).map_err(|source| TaskError::ShimGarbled {
            text: format!("{} delete: {source}", binary.display()),
        })
    }

    fn parameters(&self, key: &TaskKey, options: Option<&Any>) -> BootstrapParams {
        let options = options.map(|options| Extension { value: Some(options.clone()) });
        BootstrapParams {
            instance_id: key.id.clone(),
            namespace: key.namespace.clone(),
            log_level: if self.debug { -4 } else { 0 },
            containerd_version: env!("CARGO_PKG_VERSION").to_owned(),
            containerd_ttrpc_address: self.ttrpc_address.clone(),
            containerd_grpc_address: self.address.clone(),
            containerd_binary: self.publish_binary.to_string_lossy().into_owned(),
            extensions: options.into_iter().collect(),
            ..Default::default()
        }
    }

    async fn run(
        &self,
        binary: &Path,
        bundle: &Path,
        key: &TaskKey,
        action: &'static str,
        input: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, TaskError> {
        let failed = |source| TaskError::ShimSpawn { binary: binary.to_owned(), action, source };
        let mut command = Command::new(binary);
        command.args(["-namespace", &key.namespace, "-address", &self.address]);
        command.arg("-publish-binary").arg(&self.publish_binary).args(["-id", &key.id]);
        if self.debug {
            command.arg("-debug");
        }
        if let Some(here) = trace_log::task::current() {
            let caller = here.place().caller.to_string();
            command.env(trace_log::CALLER_VARIABLE, caller);
        }
        if action == "delete" {
            command.arg("-bundle").arg(bundle);
        }
        let mut child = command
            .arg(action)
            .current_dir(bundle)
            .env("TTRPC_ADDRESS", &self.ttrpc_address)
            .env("GRPC_ADDRESS", &self.address)
            .env("NAMESPACE", &key.namespace)
            .env("MAX_SHIM_VERSION", "2")
            .env("GOMAXPROCS", "2")
            // A signal to our process group is not for shims.
            .process_group(0)
            .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A shim that does not read its options is none the worse for it.
            stdin.write_all(input).await.ok();
        }
        let output = match tokio::time::timeout(limit, collect(&mut child)).await {
            Ok(output) => output.map_err(failed)?,
            Err(_) => {
                child.kill().await.ok();
                return Err(TaskError::ShimTimeout { binary: binary.to_owned(), action, limit });
            }
        };
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !output.status.success() {
            let said = if complaint.is_empty() {
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            } else {
                complaint
            };
            return Err(TaskError::ShimFailed { output: said, status: output.status });
        }
        if !complaint.is_empty() {
            warn!(container = key.id, action, "shim: {complaint}");
        }
        Ok(output.stdout)
    }
}

/// Waits for the end of the process, and takes what it wrote until then. Not for the end of its pipes: a
/// daemon it left behind may hold those for ever.
async fn collect(child: &mut Child) -> std::io::Result<Output> {
    const GRACE: Duration = Duration::from_millis(200);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let status = {
        let read = async {
            let first = async {
                if let Some(out) = out {
                    out.take(OUTPUT).read_to_end(&mut stdout).await.ok();
                }
            };
            let second = async {
                if let Some(err) = err {
                    err.take(OUTPUT).read_to_end(&mut stderr).await.ok();
                }
            };
            tokio::join!(first, second);
        };
        tokio::pin!(read);
        tokio::select! {
            status = child.wait() => {
                // What is already in the pipes still counts.
                tokio::time::timeout(GRACE, read).await.ok();
                status?
            }
            () = &mut read => child.wait().await?,
        }
    };
    Ok(Output { status, stdout, stderr })
}

fn wants_parameters(output: &str) -> bool {
    output.to_ascii_lowercase().contains("bootstrap")
}

/// A connected shim.
#[derive(Clone)]
pub(crate) struct Shim {
    client: Client,
    key: TaskKey,
    bootstrap: Bootstrap,
    /// Set once a shim has answered that it does not know version 3.
    downgraded: std::sync::Arc<AtomicBool>,
    pulse: std::sync::Arc<Pulse>,
}

/// How long a shim may take for what needs no disk and no runtime.
pub(crate) const QUICK: Duration = Duration::from_secs(2);
const SHUTDOWN: Duration = Duration::from_secs(3);

impl Shim {
    /// Connects; the socket must be listening.
    pub(crate) async fn connect(bootstrap: Bootstrap, key: TaskKey) -> Result<Self, TaskError> {
        let failed = |source| TaskError::Connect { address: bootstrap.address.clone(), source };
        let client = tokio::time::timeout(CONNECT, Client::connect(&bootstrap.address))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        let downgraded = std::sync::Arc::default();
        let pulse = std::sync::Arc::new(Pulse::new());
        Ok(Self { client, key, bootstrap, downgraded, pulse })
    }

    /// Resolves when the connection is lost, and with it the shim.
    pub(crate) async fn closed(&self) {
        self.client.closed().await;
    }

    /// Whether its socket is there for others.
    pub(super) fn is_found(&self) -> bool {
        Path::new(self.bootstrap.address.trim_start_matches("unix://")).exists()
    }

    /// What may take long, though not from a shim that answers nothing any more.
    async fn watched<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A, TaskError> {
        let answer = self.call(method, request, None);
        let answer = self.pulse.watch(&self.client, &self.key.id, answer).await;
        answer.unwrap_or_else(|Silent| Err(TaskError::ShimStuck { method: method.to_owned() }))
    }

    async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        limit: Option<Duration>,
    ) -> Result<A, TaskError> {
        const V2: &str = "containerd.task.v2.Task";
        const V3: &str = "containerd.task.v3.Task";
        let caller = trace_log::task::current().map(|here| here.place().caller.to_string());
        let mut metadata = [(NAMESPACE_KEY, self.key.namespace.as_str()); 2];
        let metadata = match &caller {
            None => &metadata[..1],
            Some(caller) => {
                metadata[1] = (trace_log::CALLER_KEY, caller);
                &metadata
            }
        };
        if self.bootstrap.version >= 3 && !self.downgraded.load(Ordering::Relaxed) {
            match self.client.call_message(V3, method, request, metadata, limit).await {
                Err(CallError::Status(status)) if status.code() == Code::Unimplemented => {}
                other => return Ok(other?),
            }
            let answer = self.client.call_message(V2, method, request, metadata, limit).await;
            let implemented = !matches!(&answer,
                Err(CallError::Status(status)) if status.code() == Code::Unimplemented);
            if implemented {
                self.downgraded.store(true, Ordering::Relaxed);
            }
            return Ok(answer?);
        }
        Ok(self.client.call_message(V2, method, request, metadata, limit).await?)
    }

    pub(crate) async fn create(
        &self,
        mut request: wire::CreateTaskRequest,
    ) -> Result<u32, TaskError> {
        request.id.clone_from(&self.key.id);
        let answer: wire::CreateTaskResponse = self.watched("Create", &request).await?;
        Ok(answer.pid)
    }

    pub(crate) async fn start(&self, exec_id: &str) -> Result<u32, TaskError> {
        let request = wire::StartRequest { id: self.key.id.clone(), exec_id: exec_id.to_owned() };
        let answer: wire::StartResponse = self.watched("Start", &request).await?;
        Ok(answer.pid)
    }

    pub(crate) async fn delete(
        &self,
        exec_id: &str,
        limit: Option<Duration>,
    ) -> Result<wire::DeleteResponse, TaskError> {
        let request = wire::DeleteRequest { id: self.key.id.clone(), exec_id: exec_id.to_owned() };
        match limit {
            None => self.watched("Delete", &request).await,
            limit => self.call("Delete", &request, limit).await,
        }
    }

    pub(crate) async fn state(
        &self,
        exec_id: &str,
        limit: Duration,
    ) -> Result<wire::StateResponse, TaskError> {
        let request = wire::StateRequest { id: self.key.id.clone(), exec_id: exec_id.to_owned() };
        self.call("State", &request, Some(limit)).await
    }

    pub(crate) async fn wait(&self, exec_id: &str) -> Result<wire::WaitResponse, TaskError> {
        let request = wire::WaitRequest { id: self.key.id.clone(), exec_id: exec_id.to_owned() };
        self.call("Wait", &request, None).await
    }

    pub(crate) async fn kill(
        &self,
        exec_id: &str,
        signal: u32,
        all: bool,
    ) -> Result<(), TaskError> {
        let (id, exec_id) = (self.key.id.clone(), exec_id.to_owned());
        let request = wire::KillRequest { id, exec_id, signal, all };
        self.watched("Kill", &request).await
    }

    pub(crate) async fn exec(
        &self,
        mut request: wire::ExecProcessRequest,
    ) -> Result<(), TaskError> {
        request.id.clone_from(&self.key.id);
        self.watched("Exec", &request).await
    }

    pub(crate) async fn resize(
        &self,
        exec_id: &str,
        width: u32,
        height: u32,
    ) -> Result<(), TaskError> {
        let (id, exec_id) = (self.key.id.clone(), exec_id.to_owned());
        let request = wire::ResizePtyRequest { id, exec_id, width, height };
        self.watched("ResizePty", &request).await
    }

    pub(crate) async fn close_io(&self, exec_id: &str, stdin: bool) -> Result<(), TaskError> {
        let (id, exec_id) = (self.key.id.clone(), exec_id.to_owned());
        let request = wire::CloseIoRequest { id, exec_id, stdin };
        self.watched("CloseIO", &request).await
    }

    pub(crate) async fn pause(&self) -> Result<(), TaskError> {
        self.watched("Pause", &wire::PauseRequest { id: self.key.id.clone() }).await
    }

    pub(crate) async fn resume(&self) -> Result<(), TaskError> {
        self.watched("Resume", &wire::ResumeRequest { id: self.key.id.clone() }).await
    }

    pub(crate) async fn pids(&self) -> Result<wire::PidsResponse, TaskError> {
        self.watched("Pids", &wire::PidsRequest { id: self.key.id.clone() }).await
    }

    pub(crate) async fn stats(&self, limit: Duration) -> Result<wire::StatsResponse, TaskError> {
        let request = wire::StatsRequest { id: self.key.id.clone() };
        self.call("Stats", &request, Some(limit)).await
    }

    pub(crate) async fn update(
        &self,
        mut request: wire::UpdateTaskRequest,
    ) -> Result<(), TaskError> {
        request.id.clone_from(&self.key.id);
        self.watched("Update", &request).await
    }

    /// Tells the shim to end. That it hangs up instead of answering is an answer too.
    pub(crate) async fn shutdown(&self, now: bool) -> Result<(), TaskError> {
        let request = wire::ShutdownRequest { id: self.key.id.clone(), now };
        match self.call("Shutdown", &request, Some(SHUTDOWN)).await {
            Err(TaskError::ShimGone) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn caller() -> Caller {
        Caller {
            address: "/run/a.sock".to_owned(),
            ttrpc_address: "/run/a.sock.ttrpc".to_owned(),
            publish_binary: "/bin/containerd-rs".into(),
            debug: false,
        }
    }

    fn key() -> TaskKey {
        TaskKey { namespace: "ns".to_owned(), id: "c1".to_owned() }
    }

    fn script(directory: &Path, text: &str) -> PathBuf {
        let path = directory.join("shim");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn start_passes_flags_environment_and_options() {
        let directory = tempfile::tempdir().unwrap();
        let binary = script(
            directory.path(),
            r#"echo "$@" > args; echo "$TTRPC_ADDRESS $GRPC_ADDRESS $NAMESPACE $MAX_SHIM_VERSION" > env
            cat > stdin; echo unix:///run/containerd/s/x; sleep 60 & exit 0"#,
        );
        let options = Any { type_url: "containerd.runc.v1.Options".to_owned(), value: vec![8, 1] };
        let begun = std::time::Instant::now();
        let bootstrap =
            caller().start(&binary, directory.path(), &key(), Some(&options)).await.unwrap();
        assert_eq!(
            (bootstrap.version, bootstrap.address.as_str()),
            (2, "unix:///run/containerd/s/x")
        );
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "a daemon that holds the pipes is not waited for"
        );
        let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(
            read("args"),
            "-namespace ns -address /run/a.sock -publish-binary /bin/containerd-rs -id c1 start\n"
        );
        assert_eq!(read("env"), "/run/a.sock.ttrpc /run/a.sock ns 2\n");
        let stdin = std::fs::read(directory.path().join("stdin")).unwrap();
        assert_eq!(Any::decode(stdin.as_slice()).unwrap(), options);
    }

    #[tokio::test]
    async fn a_shim_that_wants_bootstrap_parameters_gets_them() {
        let directory = tempfile::tempdir().unwrap();
        let binary = script(
            directory.path(),
            r#"if [ -e once ]; then cat > stdin; echo '{"version":3,"address":"unix:///x","protocol":"ttrpc"}'
            else > once; echo "failed to read bootstrap params" >&2; exit 1; fi"#,
        );
        let bootstrap = caller().start(&binary, directory.path(), &key(), None).await.unwrap();
        assert_eq!(bootstrap.version, 3);
        let stdin = std::fs::read(directory.path().join("stdin")).unwrap();
        let parameters = BootstrapParams::decode(stdin.as_slice()).unwrap();
        assert_eq!((parameters.instance_id.as_str(), parameters.namespace.as_str()), ("c1", "ns"));
    }

    #[tokio::test]
    async fn a_failing_shim_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let binary = script(directory.path(), "echo no space left >&2; exit 3");
        let error = caller().start(&binary, directory.path(), &key(), None).await.unwrap_err();
        assert_eq!(error.to_string(), "no space left: exit status: 3: unknown");
    }
}
