//! A shim started by hand: a bundle, a small ttrpc client, and a stand-in for containerd's event service.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use integration_tests::parts::{ours, root_file_system};
use prost::Message;
use proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use proto::containerd::task::v2 as api;
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const NAMESPACE: &str = "shim-test";

/// ttrpc's own messages, written once more here: the test shares no code with what it tests.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<RpcStatus>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

pub(crate) fn write_frame(socket: &mut UnixStream, stream: u32, kind: u8, payload: &[u8]) {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(stream.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(payload);
    socket.write_all(&frame).unwrap();
}

/// `None` at the end of the connection.
pub(crate) fn read_frame(socket: &mut UnixStream) -> Option<(u32, Vec<u8>)> {
    let mut header = [0; 10];
    socket.read_exact(&mut header).ok()?;
    let length = u32::from_be_bytes(header[..4].try_into().unwrap()) as usize;
    let stream = u32::from_be_bytes(header[4..8].try_into().unwrap());
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).unwrap();
    Some((stream, payload))
}

/// One connection to the shim; calls may overlap.
pub(crate) struct Connection {
    socket: UnixStream,
    next: u32,
    early: VecDeque<(u32, Vec<u8>)>,
}

impl Connection {
    pub(crate) fn send(&mut self, method: &str, message: &impl Message) -> u32 {
        self.send_to("containerd.task.v2.Task", method, message)
    }

    pub(crate) fn send_to(&mut self, service: &str, method: &str, message: &impl Message) -> u32 {
        let stream = self.next;
        self.next += 2;
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: message.encode_to_vec(),
        };
        write_frame(&mut self.socket, stream, 1, &request.encode_to_vec());
        stream
    }

    pub(crate) fn receive<A: Message + Default>(&mut self, stream: u32) -> Result<A, RpcStatus> {
        let known = self.early.iter().position(|(other, _)| *other == stream);
        let payload = match known.and_then(|at| self.early.remove(at)) {
            Some((_, payload)) => payload,
            None => loop {
                let (other, payload) = read_frame(&mut self.socket).expect("the shim lives");
                if other == stream {
                    break payload;
                }
                self.early.push_back((other, payload));
            },
        };
        let response = Response::decode(payload.as_slice()).unwrap();
        match response.status.filter(|status| status.code != 0) {
            Some(status) => Err(status),
            None => Ok(A::decode(response.payload.as_slice()).unwrap()),
        }
    }

    /// Whether an answer came while others were waited for.
    pub(crate) fn has_answer(&self, stream: u32) -> bool {
        self.early.iter().any(|(other, _)| *other == stream)
    }

    pub(crate) fn call<A: Message + Default>(
        &mut self,
        method: &str,
        message: &impl Message,
    ) -> Result<A, RpcStatus> {
        let stream = self.send(method, message);
        self.receive(stream)
    }
}

/// The directories of one container and its shim. Dropping it leaves nothing behind.
pub(crate) struct Shim {
    top: tempfile::TempDir,
    pub(crate) id: String,
    socket: PathBuf,
    shim_pid: Cell<i32>,
}

impl Shim {
    /// Starts a shim for a container that runs `script` in a shell.
    pub(crate) fn start(script: &str) -> Self {
        Self::start_with(script, |_| ())
    }

    /// As `start`, after `change` had its way with config.json.
    pub(crate) fn start_with(script: &str, change: impl FnOnce(&mut Value)) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("shim-test-{}-{number}", std::process::id());
        // Short: the paths of sockets are limited.
        let top = tempfile::Builder::new().prefix("shim-").tempdir_in("/tmp").unwrap();
        let bundle = top.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        root_file_system(
            &bundle.join("rootfs"),
            &["sh", "sleep", "cat", "echo", "seq", "stty", "yes", "head", "sed", "true", "dd"],
        );
        let mut config = config(&id, script);
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let mut shim = Self { top, id, socket: PathBuf::new(), shim_pid: Cell::new(0) };
        shim.launch();
        shim
    }

    /// Runs `start`, and asks the server who it is.
    pub(crate) fn launch(&mut self) {
        let output = self.program().arg("start").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let address = String::from_utf8(output.stdout).unwrap();
        assert_eq!(fs::read_to_string(self.bundle().join("address")).unwrap(), address);
        self.socket = address.strip_prefix("unix://").expect("a bare address").into();
        let state: api::ConnectResponse =
            self.connect().call("Connect", &api::ConnectRequest { id: self.id.clone() }).unwrap();
        self.shim_pid.set(i32::try_from(state.shim_pid).unwrap());
    }

    /// The shim's program with containerd's flags and directory.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(ours("containerd-shim-runc-rs-v2"));
        command
            .args(["-namespace", NAMESPACE, "-id", &self.id, "-address"])
            .arg(self.top.path().join("c.sock"))
            .env("TTRPC_ADDRESS", self.events_path())
            .current_dir(self.bundle())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn connect(&self) -> Connection {
        let socket = UnixStream::connect(&self.socket).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection { socket, next: 1, early: VecDeque::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.path("bundle")
    }

    pub(crate) fn events_path(&self) -> PathBuf {
        self.path("e")
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn pid(&self) -> i32 {
        self.shim_pid.get()
    }

    pub(crate) fn create_request(&self) -> api::CreateTaskRequest {
        self.create_request_with(Path::new(""))
    }

    /// With another runtime.
    pub(crate) fn create_request_with(&self, runtime: &Path) -> api::CreateTaskRequest {
        api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle().to_str().unwrap().to_owned(),
            options: Some(prost_types::Any {
                type_url: "containerd.runc.v1.Options".into(),
                value: proto::containerd::runc::v1::Options {
                    binary_name: runtime.to_str().unwrap().to_owned(),
                    root: self.path("runc").to_str().unwrap().to_owned(),
                    ..Default::default()
                }
                .encode_to_vec(),
            }),
            ..Default::default()
        }
    }

    pub(crate) fn start_request(&self, exec: &str) -> api::StartRequest {
        api::StartRequest { id: self.id.clone(), exec_id: exec.into() }
    }

    pub(crate) fn wait_request(&self, exec: &str) -> api::WaitRequest {
        api::WaitRequest { id: self.id.clone(), exec_id: exec.into() }
    }

    pub(crate) fn delete_request(&self, exec: &str) -> api::DeleteRequest {
        api::DeleteRequest { id: self.id.clone(), exec_id: exec.into() }
    }

    pub(crate) fn state_request(&self, exec: &str) -> api::StateRequest {
        api::StateRequest { id: self.id.clone(), exec_id: exec.into() }
    }

    pub(crate) fn kill_request(&self, signal: u32) -> api::KillRequest {
        api::KillRequest { id: self.id.clone(), signal, ..Default::default() }
    }

    pub(crate) fn exec_request(&self, exec: &str, args: &[&str]) -> api::ExecProcessRequest {
        let process = json!({
            "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": ["PATH=/bin"],
        });
        api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.into(),
            spec: Some(prost_types::Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
                value: process.to_string().into_bytes(),
            }),
            ..Default::default()
        }
    }

    /// Makes a fifo as a client would.
    pub(crate) fn fifo(&self, name: &str) -> String {
        let path = self.path(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn is_alive(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid())).exists()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if self.pid() > 1 && self.is_alive() {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(self.pid()),
                nix::sys::signal::Signal::SIGKILL,
            )
            .ok();
        }
        self.program().arg("delete").output().ok();
    }
}

/// Reads a fifo to its end, opened so that no writer has to be there yet.
pub(crate) fn open_reader(path: &str) -> fs::File {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

pub(crate) fn read_all(mut reader: fs::File) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return String::from_utf8(all).unwrap(),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "no end of output");
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What listens where containerd would.
pub(crate) struct Events {
    listener: UnixListener,
    connection: Option<UnixStream>,
}

impl Events {
    pub(crate) fn listen(shim: &Shim) -> Self {
        let path = shim.events_path();
        fs::remove_file(&path).ok();
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Self { listener, connection: None }
    }

    /// The next event's topic, acknowledged if `acknowledge`.
    pub(crate) fn next(&mut self, acknowledge: bool) -> String {
        loop {
            let socket = self.connection.get_or_insert_with(|| {
                let socket = self.listener.accept().unwrap().0;
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            });
            let Some((stream, payload)) = read_frame(socket) else {
                self.connection = None;
                continue;
            };
            let request = Request::decode(payload.as_slice()).unwrap();
            assert_eq!(request.service, "containerd.services.events.ttrpc.v1.Events");
            let forward = ForwardRequest::decode(request.payload.as_slice()).unwrap();
            let envelope = forward.envelope.unwrap();
            assert_eq!(envelope.namespace, NAMESPACE);
            if acknowledge {
                write_frame(socket, stream, 2, &Response::default().encode_to_vec());
            }
            return envelope.topic;
        }
    }

    pub(crate) fn topics(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next(true)).collect()
    }
}

fn config(id: &str, script: &str) -> Value {
    let namespaces: Vec<Value> = ["pid", "mount", "ipc", "uts", "network"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["sh", "-c", script], "cwd": "/",
            "env": ["PATH=/bin"],
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{NAMESPACE}/{id}")},
    })
}
