//! The service over a shim that lives in the test: its binary is a script, its socket is served here.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use proto::containerd::task::v2 as wire;
use proto::containerd::v1::types::Status as TaskStatus;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use ttrpc_wire::{Code, Request, Service, Status, serve_connection};

use super::*;

const PID: u32 = 4242;

/// A shim with one container that ends when told.
struct Fake {
    version: &'static str,
    fail_create: bool,
    /// A Create waits until it is true.
    go: watch::Sender<bool>,
    created: AtomicBool,
    silent: AtomicBool,
    exit: watch::Sender<Option<u32>>,
    calls: watch::Sender<Vec<String>>,
}

impl Fake {
    fn new(version: &'static str) -> Self {
        Self {
            version,
            fail_create: false,
            go: watch::Sender::new(true),
            created: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            exit: watch::Sender::new(None),
            calls: watch::Sender::default(),
        }
    }

    fn calls(&self) -> Vec<String> {
        self.calls.borrow().clone()
    }
}

impl Service for Fake {
    async fn call(&self, request: Request) -> Result<Vec<u8>, Status> {
        if request.service != format!("containerd.task.{}.Task", self.version) {
            return Err(Status::new(Code::Unimplemented, "unknown service"));
        }
        assert_eq!(request.metadata_value(ttrpc_wire::NAMESPACE_KEY), Some("ns"));
        self.calls.send_modify(|calls| calls.push(request.method.clone()));
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let stopped = *self.exit.borrow();
        if !self.created.load(Ordering::SeqCst)
            && !matches!(&*request.method, "Create" | "Shutdown")
        {
            return Err(Status::new(Code::NotFound, "container not created"));
        }
        Ok(match request.method.as_str() {
            "Create" if self.fail_create => {
                return Err(Status::new(Code::Unknown, "OCI runtime create failed: boom"));
            }
            "Create" => {
                self.go.subscribe().wait_for(|go| *go).await.ok();
                self.created.store(true, Ordering::SeqCst);
                wire::CreateTaskResponse { pid: PID }.encode_to_vec()
            }
            "Start" => wire::StartResponse { pid: PID }.encode_to_vec(),
            "State" => {
                let mut state = wire::StateResponse { pid: PID, ..Default::default() };
                state.set_status(if stopped.is_some() {
                    TaskStatus::Stopped
                } else {
                    TaskStatus::Running
                });
                state.exit_status = stopped.unwrap_or_default();
                state.encode_to_vec()
            }
            "Wait" => {
                let exit = self.exit.subscribe().wait_for(Option::is_some).await.map(|exit| *exit);
                let exit_status = exit.ok().flatten().unwrap_or_default();
                wire::WaitResponse { exit_status, exited_at: None }.encode_to_vec()
            }
            "Delete" => match stopped {
                Some(exit_status) => {
                    self.created.store(false, Ordering::SeqCst);
                    wire::DeleteResponse { pid: PID, exit_status, exited_at: None }.encode_to_vec()
                }
                None => return Err(Status::new(Code::FailedPrecondition, "still running")),
            },
            "Shutdown" | "Kill" => Vec::new(),
            other => return Err(Status::new(Code::Unimplemented, other.to_owned())),
        })
    }
}

/// Temporary directories, a runtime service, the events it published.
struct Bench {
    top: tempfile::TempDir,
    events: watch::Sender<Vec<(String, TaskExit)>>,
}

impl Bench {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let answer = wire::DeleteResponse {
            pid: PID,
            exit_status: 137,
            exited_at: Some(Timestamp { seconds: 7, nanos: 0 }),
        };
        std::fs::write(top.path().join("delete-answer"), answer.encode_to_vec()).unwrap();
        let top_path = top.path().display();
        let script = format!(
            "#!/bin/sh\nfor last; do :; done\ncase $last in\n\
             start) cat {top_path}/start-answer;;\ndelete) cat {top_path}/delete-answer;;\nesac\n"
        );
        let path = top.path().join("shim");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { top, events: watch::Sender::default() }
    }

    fn runtime(&self) -> Runtime {
        let at = |name: &str| self.top.path().join(name);
        let settings = Settings {
            root: at("root"),
            state: at("state"),
            address: at("c.sock"),
            ttrpc_address: at("c.sock.ttrpc"),
            shims: BTreeMap::new(),
            debug: false,
        };
        let events = self.events.clone();
        let publish = move |envelope: Envelope| {
            let any = envelope.event.unwrap();
            let exit = proto::any::unpack::<TaskExit>(&any).unwrap_or_default();
            events.send_modify(|events| events.push((envelope.topic, exit)));
        };
        Runtime::new(settings, Arc::new(publish))
    }

    /// Serves the shim; it dies when the handle is dropped.
    fn shim(&self, fake: Fake, version: u32) -> (Arc<Fake>, JoinSet<()>) {
        let socket = self.top.path().join("shim.sock");
        std::fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(&socket).unwrap();
        let address = format!("unix://{}", socket.display());
        let answer = match version {
            2 => address,
            _ => format!(r#"{{"version":{version},"address":"{address}","protocol":"ttrpc"}}"#),
        };
        std::fs::write(self.top.path().join("start-answer"), answer).unwrap();
        let fake = Arc::new(fake);
        let service = Arc::clone(&fake);
        let mut life = JoinSet::new();
        life.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = Arc::clone(&service);
                connections.spawn(async move { serve_connection(stream, service).await.unwrap() });
            }
        });
        (fake, life)
    }

    fn request(&self) -> CreateTask {
        CreateTask {
            spec: b"{}".to_vec(),
            runtime: self.top.path().join("shim").display().to_string(),
            ..CreateTask::default()
        }
    }

    fn bundle(&self) -> PathBuf {
        self.top.path().join("state/io.containerd.runtime.v2.task/ns/c1")
    }

    fn topics(&self) -> Vec<String> {
        self.events.borrow().iter().map(|(topic, _)| topic.clone()).collect()
    }
}

fn key() -> TaskKey {
    TaskKey { namespace: "ns".to_owned(), id: "c1".to_owned() }
}

#[tokio::test]
async fn a_task_lives_from_create_to_delete_and_leaves_nothing() {
    let bench = Bench::new();
    let (fake, _life) = bench.shim(Fake::new("v2"), 2);
    let runtime = bench.runtime();
    let (task, pid) = runtime.create(key(), bench.request()).await.unwrap();
    assert_eq!(pid, PID);
    assert!(bench.bundle().join("bootstrap.json").exists());
    assert_eq!(task.start("").await.unwrap(), PID);
    let again = runtime.create(key(), bench.request()).await.map(|_| ()).unwrap_err();
    assert_eq!(again.to_string(), "task c1: already exists");
    let running = task.delete().await.unwrap_err();
    assert_eq!(running.to_string(), "still running: failed precondition");
    let waiter = tokio::spawn({
        let task = Arc::clone(&task);
        async move { task.wait("").await.unwrap() }
    });
    fake.exit.send_replace(Some(3));
    assert_eq!(waiter.await.unwrap().status, 3);
    assert_eq!(task.delete().await.unwrap().status, 3);
    assert!(!bench.bundle().exists());
    assert!(matches!(runtime.get(&key()), Err(TaskError::NotFound { .. })));
    assert!(matches!(task.delete().await, Err(TaskError::NotFound { .. })));
    assert_eq!(fake.calls().last().unwrap(), "Shutdown");
    assert_eq!(bench.topics(), [] as [&str; 0], "a living shim tells its events itself");
}

#[tokio::test]
async fn whoever_deletes_waits_for_the_creation() {
    let bench = Bench::new();
    let (fake, _life) = bench.shim(Fake::new("v3"), 3);
    fake.go.send_replace(false);
    fake.exit.send_replace(Some(0));
    let runtime = bench.runtime();
    let (creator, request) = (runtime.clone(), bench.request());
    let creation = tokio::spawn(async move { creator.create(key(), request).await.map(drop) });
    let asked = |calls: &Vec<String>| calls.contains(&"Create".to_owned());
    fake.calls.subscribe().wait_for(asked).await.unwrap();
    let key = key();
    assert!(matches!(runtime.get(&key), Err(TaskError::NotFound { .. })));
    let settled = runtime.settled(&key);
    tokio::pin!(settled);
    assert!(futures_util::poll!(&mut settled).is_pending());
    fake.go.send_replace(true);
    settled.await;
    runtime.get(&key).unwrap().delete().await.unwrap();
    creation.await.unwrap().unwrap();
    runtime.settled(&key).await;
}

#[tokio::test]
async fn a_refused_create_leaves_no_bundle_and_frees_the_name() {
    let bench = Bench::new();
    let (_fake, life) = bench.shim(Fake { fail_create: true, ..Fake::new("v2") }, 2);
    let runtime = bench.runtime();
    let error = runtime.create(key(), bench.request()).await.map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create shim task: OCI runtime create failed: boom: unknown"
    );
    assert!(!bench.bundle().exists());
    drop(life);
    let (_fake, _life) = bench.shim(Fake::new("v2"), 2);
    runtime.create(key(), bench.request()).await.unwrap();
}

#[tokio::test]
async fn a_shims_death_ends_its_task_and_is_told() {
    let bench = Bench::new();
    let (_fake, life) = bench.shim(Fake::new("v2"), 2);
    let runtime = bench.runtime();
    let (task, _) = runtime.create(key(), bench.request()).await.unwrap();
    task.start("").await.unwrap();
    let waiter = tokio::spawn(async move { task.wait("").await.unwrap() });
    tokio::task::yield_now().await;
    drop(life);
    let exit = waiter.await.unwrap();
    assert_eq!((exit.pid, exit.status, exit.at.unwrap().seconds), (PID, 137, 7));
    bench.events.subscribe().wait_for(|events| events.len() == 2).await.unwrap();
    assert_eq!(bench.topics(), [topic::EXIT, topic::DELETE]);
    assert_eq!(bench.events.borrow()[0].1.exit_status, 137);
    assert!(!bench.bundle().exists());
    assert!(runtime.get(&key()).is_err());
}

#[tokio::test]
async fn a_restart_finds_the_task_and_its_exit_in_between() {
    let bench = Bench::new();
    let (fake, _life) = bench.shim(Fake::new("v3"), 3);
    {
        let before = bench.runtime();
        before.create(key(), bench.request()).await.unwrap();
        // Our own end: the owner is not there to see the connection close.
        std::mem::forget(before);
    }
    fake.exit.send_replace(Some(5));
    let after = bench.runtime();
    after.reload().await;
    let task = after.get(&key()).unwrap();
    assert_eq!(task.wait("").await.unwrap().status, 5);
    assert_eq!(task.state("").await.unwrap().exit_status, 5);
    task.delete().await.unwrap();
    assert!(!bench.bundle().exists());
}

#[tokio::test]
async fn a_lost_shim_is_cleaned_up_at_the_restart() {
    let bench = Bench::new();
    let bundle =
        Bundle::locate(&bench.top.path().join("root"), &bench.top.path().join("state"), &key());
    bundle.create(b"{}").unwrap();
    bundle.save_shim(&bench.top.path().join("shim")).unwrap();
    std::fs::write(bundle.path.join("address"), "unix:///nowhere.sock").unwrap();
    std::fs::create_dir_all(bench.top.path().join("root/io.containerd.runtime.v2.task/ns/stray"))
        .unwrap();
    let runtime = bench.runtime();
    runtime.reload().await;
    assert!(runtime.get(&key()).is_err());
    assert_eq!(bench.topics(), [topic::EXIT, topic::DELETE]);
    assert!(!bundle.path.exists());
    assert!(!bench.top.path().join("root/io.containerd.runtime.v2.task/ns/stray").exists());
}

#[tokio::test]
async fn a_shim_that_only_speaks_version_2_is_spoken_to_in_version_2() {
    let bench = Bench::new();
    let (fake, _life) = bench.shim(Fake::new("v2"), 3);
    let runtime = bench.runtime();
    let (task, _) = runtime.create(key(), bench.request()).await.unwrap();
    task.start("").await.unwrap();
    assert_eq!(fake.calls(), ["Create", "Start"]);
}

#[tokio::test]
async fn a_silent_shim_is_answered_for_and_its_noted_exit_known() {
    let bench = Bench::new();
    let (fake, _life) = bench.shim(Fake::new("v2"), 2);
    let runtime = bench.runtime();
    let (task, _) = runtime.create(key(), bench.request()).await.unwrap();
    fake.silent.store(true, Ordering::SeqCst);
    let state = task.state("").await.unwrap();
    assert_eq!((state.pid, state.status()), (PID, TaskStatus::Unknown));
    let event = TaskExit {
        container_id: "c1".to_owned(),
        id: "c1".to_owned(),
        pid: PID,
        exit_status: 9,
        exited_at: None,
    };
    runtime.forward(Envelope {
        timestamp: Some(now()),
        namespace: "ns".to_owned(),
        topic: topic::EXIT.to_owned(),
        event: Some(proto::any::pack(&event)),
    });
    assert_eq!(task.wait("").await.unwrap().status, 9);
    let state = task.state("").await.unwrap();
    assert_eq!((state.exit_status, state.status()), (9, TaskStatus::Stopped));
    assert_eq!(bench.topics(), [topic::EXIT]);
}
