//! A private containerd-rs: temporary directories, the process, and clients of its services.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use integration_tests::parts::{ours, root_file_system};
use prost_types::Any;
use proto::containerd::events::{TaskCreate, TaskDelete, TaskExit, TaskStart};
use proto::containerd::services::containers::v1::container::Runtime;
use proto::containerd::services::containers::v1::containers_client::ContainersClient;
use proto::containerd::services::containers::v1::{Container, CreateContainerRequest};
use proto::containerd::services::events::v1::SubscribeRequest;
use proto::containerd::services::events::v1::events_client::EventsClient;
use proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteTaskRequest, StartRequest, WaitRequest, WaitResponse,
};
use proto::containerd::types::Envelope;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// The runtime that clients name by default.
pub(crate) const RUNTIME: &str = "io.containerd.runc.v2";
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends every request in one namespace. Each daemon's is its own: runtimes keep state by it.
#[derive(Clone)]
pub(crate) struct InNamespace(String);

impl Interceptor for InNamespace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("containerd-namespace", self.0.parse().unwrap());
        Ok(request)
    }
}

pub(crate) type Wire = InterceptedService<Channel, InNamespace>;

/// A running daemon. Dropping it ends daemon, shims and containers.
pub(crate) struct Daemon {
    pub(crate) top: tempfile::TempDir,
    process: Option<Child>,
    pub(crate) channel: Channel,
    pub(crate) namespace: String,
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        // Short: the paths of sockets are limited.
        let top = tempfile::Builder::new().prefix("crs-").tempdir_in("/tmp").unwrap();
        let rootfs = top.path().join("rootfs");
        root_file_system(&rootfs, &["sh", "sleep", "cat", "echo", "true"]);
        let process = Some(spawn(top.path()));
        let channel = connect(top.path()).await;
        let namespace = top.path().file_name().unwrap().to_str().unwrap().to_owned();
        Self { top, process, channel, namespace }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        let status = process.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    /// SIGTERM; gives how the daemon ended.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let mut process = self.process.take().unwrap();
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        process.wait().unwrap()
    }

    pub(crate) async fn restart(&mut self) {
        assert!(self.process.is_none());
        self.process = Some(spawn(self.top.path()));
        self.channel = connect(self.top.path()).await;
    }

    pub(crate) fn tasks(&self) -> TasksClient<Wire> {
        TasksClient::with_interceptor(self.channel.clone(), InNamespace(self.namespace.clone()))
    }

    pub(crate) fn containers(&self) -> ContainersClient<Wire> {
        ContainersClient::with_interceptor(
            self.channel.clone(),
            InNamespace(self.namespace.clone()),
        )
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.top.path().join("rootfs")
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        let tasks = self.top.path().join("state/io.containerd.runtime.v2.task");
        tasks.join(&self.namespace).join(id)
    }

    /// config.json for a shell script.
    pub(crate) fn spec(&self, id: &str, script: &str) -> Value {
        let namespaces =
            ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "noNewPrivileges": true,
            },
            "root": {"path": self.rootfs()},
            "hostname": id,
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": format!("/{}/{id}", self.namespace),
            },
        })
    }

    pub(crate) async fn container(&self, id: &str, spec: &Value, runtime: &str) {
        let container = Container {
            id: id.to_owned(),
            runtime: Some(Runtime { name: runtime.to_owned(), options: None }),
            spec: Some(json_any("Spec", spec)),
            ..Default::default()
        };
        let request = CreateContainerRequest { container: Some(container) };
        self.containers().create(request).await.unwrap();
    }

    /// A container of the default runtime and its task, created; stdout goes to a file.
    pub(crate) async fn task(&self, id: &str, script: &str) {
        self.container(id, &self.spec(id, script), RUNTIME).await;
        let answer = self.tasks().create(self.create_request(id)).await.unwrap().into_inner();
        assert!(answer.pid > 1);
    }

    pub(crate) fn create_request(&self, id: &str) -> CreateTaskRequest {
        CreateTaskRequest {
            container_id: id.to_owned(),
            // Both: the stock shim of 1.6 falls over a file for one alone.
            stdout: format!("file://{}", self.output(id).display()),
            stderr: format!("file://{}", self.output(id).display()),
            ..Default::default()
        }
    }

    pub(crate) fn output(&self, id: &str) -> PathBuf {
        self.top.path().join(format!("{id}.out"))
    }

    pub(crate) async fn started(&self, id: &str, script: &str) -> u32 {
        self.task(id, script).await;
        let request = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
        self.tasks().start(request).await.unwrap().into_inner().pid
    }

    pub(crate) async fn wait(&self, id: &str, exec_id: &str) -> WaitResponse {
        let request = WaitRequest { container_id: id.to_owned(), exec_id: exec_id.to_owned() };
        let wait = self.tasks().wait(request).await;
        wait.unwrap().into_inner()
    }

    pub(crate) async fn delete(&self, id: &str) -> u32 {
        let request = DeleteTaskRequest { container_id: id.to_owned() };
        self.tasks().delete(request).await.unwrap().into_inner().exit_status
    }

    /// Events from now on, as short words: `create c1`, `exit c1/exec 3`.
    pub(crate) async fn events(&self) -> Words {
        let mut client = EventsClient::new(self.channel.clone());
        let filters = vec!["topic~=|^/tasks/|".to_owned()];
        let namespace = self.namespace.clone();
        let mut stream = client.subscribe(SubscribeRequest { filters }).await.unwrap().into_inner();
        let (sender, words) = mpsc::channel(1024);
        tokio::spawn(async move {
            while let Ok(Some(envelope)) = stream.message().await {
                if sender.send(word(&envelope, &namespace)).await.is_err() {
                    return;
                }
            }
        });
        Words { words }
    }

    /// The pid of the shim that serves a bundle.
    pub(crate) fn shim(&self, id: &str) -> i32 {
        self.find_shim(id).expect("a shim works in the bundle")
    }

    fn find_shim(&self, id: &str) -> Option<i32> {
        let bundle = self.bundle(id);
        let mut pids = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
        pids.find(|pid| {
            let Ok(cmdline) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
            let name = cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == bundle)
                && String::from_utf8_lossy(name).contains("containerd-shim")
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
        if std::thread::panicking() {
            let log = fs::read(self.top.path().join("log")).unwrap_or_default();
            std::io::stderr().write_all(&log).ok();
        }
        // Shims are recognised by their bundle; each is asked to take its container with it.
        let tasks =
            self.top.path().join("state/io.containerd.runtime.v2.task").join(&self.namespace);
        for bundle in fs::read_dir(tasks).into_iter().flatten().flatten() {
            let id = bundle.file_name().into_string().unwrap();
            let Ok(binary) = fs::read_to_string(bundle.path().join("shim-binary-path")) else {
                continue;
            };
            if let Some(pid) = self.find_shim(&id).and_then(rustix::process::Pid::from_raw) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
            Command::new(binary.trim())
                .args(["-namespace", &self.namespace, "-address"])
                .arg(self.top.path().join("c.sock"))
                .args(["-publish-binary", "/bin/true", "-id", &id, "-bundle"])
                .arg(bundle.path())
                .arg("delete")
                .current_dir(bundle.path())
                .stdout(Stdio::null())
                .status()
                .ok();
        }
        remove_cgroups(&self.namespace);
    }
}

/// Removes the empty cgroups above the containers, which no runtime takes for its own.
fn remove_cgroups(name: &str) {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([top.to_owned()]) {
        let parent = hierarchy.join(name);
        for child in fs::read_dir(&parent).into_iter().flatten().flatten() {
            if child.path().is_dir() {
                fs::remove_dir(child.path()).ok();
            }
        }
        fs::remove_dir(parent).ok();
    }
}

/// Words of events in the order they came.
pub(crate) struct Words {
    words: mpsc::Receiver<String>,
}

impl Words {
    pub(crate) async fn next(&mut self) -> String {
        let next = tokio::time::timeout(PATIENCE, self.words.recv()).await;
        next.expect("an event in time").expect("the stream of events")
    }

    /// Collects until `last` has come.
    pub(crate) async fn until(&mut self, last: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            all.push(self.next().await);
            if all.last().is_some_and(|word| word == last) {
                return all;
            }
        }
    }
}

fn word(envelope: &Envelope, namespace: &str) -> String {
    assert_eq!(envelope.namespace, namespace);
    let topic = envelope.topic.trim_start_matches("/tasks/");
    let any = envelope.event.clone().unwrap();
    if let Ok(event) = proto::any::unpack::<TaskExit>(&any) {
        let process = if event.id == event.container_id {
            event.id
        } else {
            format!("{}/{}", event.container_id, event.id)
        };
        format!("{topic} {process} {}", event.exit_status)
    } else if let Ok(event) = proto::any::unpack::<TaskCreate>(&any) {
        format!("{topic} {}", event.container_id)
    } else if let Ok(event) = proto::any::unpack::<TaskStart>(&any) {
        format!("{topic} {}", event.container_id)
    } else if let Ok(event) = proto::any::unpack::<TaskDelete>(&any) {
        format!("{topic} {} {}", event.container_id, event.exit_status)
    } else {
        topic.to_owned()
    }
}

pub(crate) fn json_any(kind: &str, value: &Value) -> Any {
    Any {
        type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{kind}"),
        value: serde_json::to_vec(value).unwrap(),
    }
}

/// Polls until it holds; for what no event tells.
pub(crate) async fn eventually(what: &str, mut held: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !held() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn spawn(top: &Path) -> Child {
    let log = fs::OpenOptions::new().append(true).create(true).open(top.join("log")).unwrap();
    // TEST_SHIM=/path puts another shim under the stock runtime name; upstream's must pass too.
    let shim = std::env::var("TEST_SHIM").map(|path| {
        format!("[plugins.\"io.containerd.runc-rs\".shims]\n\"{RUNTIME}\" = {path:?}\n")
    });
    let config = top.join("config.toml");
    fs::write(&config, format!("version = 2\n{}", shim.unwrap_or_default())).unwrap();
    Command::new(ours("containerd-rs"))
        .args(["--log-level", "debug", "--config"])
        .arg(config)
        .arg("--root")
        .arg(top.join("root"))
        .arg("--state")
        .arg(top.join("state"))
        .arg("--address")
        .arg(top.join("c.sock"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

async fn connect(top: &Path) -> Channel {
    let socket = top.join("c.sock");
    let begun = Instant::now();
    loop {
        let path = socket.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        match endpoint.connect_with_connector(connector).await {
            Ok(channel) => return channel,
            Err(error) => {
                let log = || fs::read_to_string(top.join("log")).unwrap_or_default();
                assert!(begun.elapsed() < PATIENCE, "{error}\n{}", log());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}
