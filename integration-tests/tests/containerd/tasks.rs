//! Tasks: birth, exec, kill, end, and what outlives the daemon.

use std::fs;
use std::time::{Duration, Instant};

use proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteProcessRequest, ExecProcessRequest, GetRequest, KillRequest,
    ListPidsRequest, ListTasksRequest, MetricsRequest, PauseTaskRequest, ResumeTaskRequest,
    StartRequest, WaitRequest,
};
use proto::containerd::types::Mount;
use proto::containerd::v1::types::{Process, Status};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tonic::Code;

use crate::daemon::{Daemon, RUNTIME, eventually, json_any};

fn about(id: &str) -> GetRequest {
    GetRequest { container_id: id.to_owned(), exec_id: String::new() }
}

async fn get(daemon: &Daemon, id: &str) -> Process {
    daemon.tasks().get(about(id)).await.unwrap().into_inner().process.unwrap()
}

fn signal(id: &str, exec_id: &str, signal: u32) -> KillRequest {
    KillRequest { container_id: id.to_owned(), exec_id: exec_id.to_owned(), signal, all: false }
}

fn exec(id: &str, exec_id: &str, script: &str) -> ExecProcessRequest {
    let process = json!({
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
    });
    ExecProcessRequest {
        container_id: id.to_owned(),
        exec_id: exec_id.to_owned(),
        spec: Some(json_any("Process", &process)),
        ..Default::default()
    }
}

fn start(id: &str, exec_id: &str) -> StartRequest {
    StartRequest { container_id: id.to_owned(), exec_id: exec_id.to_owned() }
}

async fn end(daemon: &Daemon, id: &str) {
    daemon.tasks().kill(signal(id, "", 9)).await.unwrap();
    assert_eq!(daemon.wait(id, "").await.exit_status, 137);
    assert_eq!(daemon.delete(id).await, 137);
}

#[tokio::test]
async fn a_task_runs_to_its_exit_and_its_events_come_in_order() {
    let daemon = Daemon::start().await;
    let mut events = daemon.events().await;
    daemon.task("c1", "echo hello; exit 7").await;
    assert_eq!(get(&daemon, "c1").await.status(), Status::Created);
    let pid = daemon.tasks().start(start("c1", "")).await.unwrap().into_inner().pid;
    let exit = daemon.wait("c1", "").await;
    assert_eq!(exit.exit_status, 7);
    assert!(exit.exited_at.is_some());
    let process = get(&daemon, "c1").await;
    assert_eq!((process.pid, process.exit_status), (pid, 7));
    assert_eq!(process.status(), Status::Stopped);
    assert_eq!(daemon.delete("c1").await, 7);
    assert_eq!(
        events.until("delete c1 7").await,
        ["create c1", "start c1", "exit c1 7", "delete c1 7"]
    );
    assert_eq!(fs::read_to_string(daemon.output("c1")).unwrap(), "hello\n");
    assert!(!daemon.bundle("c1").exists());
    let gone = daemon.tasks().get(about("c1")).await.unwrap_err();
    assert_eq!((gone.code(), gone.message()), (Code::NotFound, "task c1 not found"));
}

#[tokio::test]
async fn a_root_file_system_is_mounted_and_unmounted_with_the_task() {
    let daemon = Daemon::start().await;
    let mut spec = daemon.spec("c1", "echo in $(cat /etc-marker)");
    spec["root"] = json!({"path": "rootfs"});
    fs::write(daemon.rootfs().join("etc-marker"), "the image").unwrap();
    daemon.container("c1", &spec, RUNTIME).await;
    let rootfs = Mount {
        r#type: "bind".to_owned(),
        source: daemon.rootfs().display().to_string(),
        options: vec!["rbind".to_owned(), "rw".to_owned()],
        ..Default::default()
    };
    let request = CreateTaskRequest { rootfs: vec![rootfs], ..daemon.create_request("c1") };
    daemon.tasks().create(request).await.unwrap();
    daemon.tasks().start(start("c1", "")).await.unwrap();
    assert_eq!(daemon.wait("c1", "").await.exit_status, 0);
    daemon.delete("c1").await;
    assert_eq!(fs::read_to_string(daemon.output("c1")).unwrap(), "in the image\n");
    assert!(!daemon.bundle("c1").exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(daemon.top.path().to_str().unwrap()), "{mounts}");
}

#[tokio::test]
async fn execs_have_their_own_exit_and_a_kill_ends_the_first_process() {
    let daemon = Daemon::start().await;
    let mut events = daemon.events().await;
    let pid = daemon.started("c1", "sleep 1000").await;
    daemon.tasks().exec(exec("c1", "e1", "exit 3")).await.unwrap();
    let exec_pid = daemon.tasks().start(start("c1", "e1")).await.unwrap().into_inner().pid;
    assert_ne!(exec_pid, pid);
    assert_eq!(daemon.wait("c1", "e1").await.exit_status, 3);
    let request = DeleteProcessRequest { container_id: "c1".to_owned(), exec_id: "e1".to_owned() };
    let deleted = daemon.tasks().delete_process(request).await.unwrap().into_inner();
    assert_eq!((deleted.id.as_str(), deleted.pid, deleted.exit_status), ("e1", exec_pid, 3));

    let list = daemon.tasks().list(ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    assert_eq!(
        list.iter().map(|task| (task.id.as_str(), task.pid)).collect::<Vec<_>>(),
        [("c1", pid)]
    );
    let request = ListPidsRequest { container_id: "c1".to_owned() };
    let pids = daemon.tasks().list_pids(request).await.unwrap().into_inner().processes;
    assert!(pids.iter().any(|process| process.pid == pid));
    end(&daemon, "c1").await;
    assert_eq!(
        events.until("delete c1 137").await,
        [
            "create c1",
            "start c1",
            "exec-added",
            "exec-started",
            "exit c1/e1 3",
            "exit c1 137",
            "delete c1 137"
        ]
    );
}

#[tokio::test]
async fn a_paused_task_says_so_and_metrics_are_told() {
    let daemon = Daemon::start().await;
    let pid = daemon.started("c1", "sleep 1000").await;
    let pause = PauseTaskRequest { container_id: "c1".to_owned() };
    daemon.tasks().pause(pause).await.unwrap();
    assert_eq!(get(&daemon, "c1").await.status(), Status::Paused);
    let resume = ResumeTaskRequest { container_id: "c1".to_owned() };
    daemon.tasks().resume(resume).await.unwrap();
    assert_eq!(get(&daemon, "c1").await.status(), Status::Running);
    assert_eq!(get(&daemon, "c1").await.pid, pid);
    for (filter, count) in [("id==c1", 1), ("id==other", 0)] {
        let request = MetricsRequest { filters: vec![filter.to_owned()] };
        let metrics = daemon.tasks().metrics(request).await.unwrap().into_inner().metrics;
        assert_eq!(metrics.len(), count, "{filter}");
        for metric in metrics {
            assert!(metric.data.unwrap().type_url.starts_with("io.containerd.cgroups.v"));
        }
    }
    end(&daemon, "c1").await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_containerds_words() {
    let daemon = Daemon::start().await;
    let mut tasks = daemon.tasks();
    let unknown = tasks.create(daemon.create_request("none")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().ends_with("not found"), "{}", unknown.message());

    daemon.container("odd", &daemon.spec("odd", "true"), "io.containerd.odd.v9").await;
    let odd = tasks.create(daemon.create_request("odd")).await.unwrap_err();
    assert_eq!(
        odd.message(),
        "failed to start shim: failed to resolve runtime path: runtime \"io.containerd.odd.v9\" binary \
         not installed \"containerd-shim-odd-v9\": file does not exist: unknown"
    );

    let mut spec = daemon.spec("nocmd", "");
    spec["process"]["args"] = json!(["no-such-command"]);
    daemon.container("nocmd", &spec, RUNTIME).await;
    let missing = tasks.create(daemon.create_request("nocmd")).await.unwrap_err();
    assert!(missing.message().starts_with("failed to create shim task: "), "{missing}");
    assert!(missing.message().contains("executable file not found in $PATH"), "{missing}");
    assert!(!daemon.bundle("nocmd").exists());

    daemon.task("c1", "exit 0").await;
    let again = tasks.create(daemon.create_request("c1")).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (Code::AlreadyExists, "task c1: already exists"));
    tasks.start(start("c1", "")).await.unwrap();
    daemon.wait("c1", "").await;
    let finished = tasks.kill(signal("c1", "", 9)).await.unwrap_err();
    assert_eq!(
        (finished.code(), finished.message()),
        (Code::NotFound, "process already finished: not found")
    );
    let nobody = tasks.kill(signal("c1", "nobody", 9)).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
    daemon.delete("c1").await;
}

#[tokio::test]
async fn tasks_go_on_without_the_daemon_and_are_known_after_its_return() {
    let mut daemon = Daemon::start().await;
    let wait_for = |file: &str| format!("while ! [ -e /{file} ]; do sleep 0.02; done; exit 5");
    let pid = daemon.started("stays", "sleep 1000").await;
    daemon.started("ends", &wait_for("go")).await;
    daemon.tasks().exec(exec("stays", "e1", &wait_for("go"))).await.unwrap();
    daemon.tasks().start(start("stays", "e1")).await.unwrap();
    let mut tasks = daemon.tasks();
    let cut = tokio::spawn(async move {
        let request = WaitRequest { container_id: "ends".to_owned(), exec_id: String::new() };
        tasks.wait(request).await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    daemon.kill();
    assert!(cut.await.unwrap().is_err());
    let alive = format!("/proc/{pid}");
    assert!(fs::exists(&alive).unwrap(), "the container goes on");
    fs::write(daemon.rootfs().join("go"), "").unwrap();
    let shim = daemon.shim("ends");
    eventually("the process ends while nobody looks", || {
        let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children"));
        children.unwrap_or_default().trim().is_empty()
    })
    .await;

    daemon.restart().await;
    let stays = get(&daemon, "stays").await;
    assert_eq!((stays.status(), stays.pid), (Status::Running, pid));
    assert_eq!(daemon.wait("ends", "").await.exit_status, 5);
    assert_eq!(daemon.wait("stays", "e1").await.exit_status, 5);
    assert_eq!(daemon.delete("ends").await, 5);
    let mut events = daemon.events().await;
    end(&daemon, "stays").await;
    // A shim may still hand in what happened while nobody listened.
    let mut last = events.until("delete stays 137").await;
    last.retain(|word| word.contains(" stays "));
    assert_eq!(last, ["exit stays 137", "delete stays 137"]);
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_along_and_waiters_are_told() {
    let daemon = Daemon::start().await;
    let mut events = daemon.events().await;
    let pid = daemon.started("c1", "sleep 1000").await;
    let mut tasks = daemon.tasks();
    let waiter = tokio::spawn(async move {
        let request = WaitRequest { container_id: "c1".to_owned(), exec_id: String::new() };
        tasks.wait(request).await.unwrap().into_inner().exit_status
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    kill_process(Pid::from_raw(daemon.shim("c1")).unwrap(), Signal::KILL).unwrap();
    assert_eq!(waiter.await.unwrap(), 137);
    assert_eq!(
        events.until("delete c1 137").await,
        ["create c1", "start c1", "exit c1 137", "delete c1 137"]
    );
    eventually("the container is gone", || !fs::exists(format!("/proc/{pid}")).unwrap()).await;
    assert!(!daemon.bundle("c1").exists());
    assert_eq!(daemon.tasks().get(about("c1")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_stopped_shim_holds_up_nobody_else() {
    let mut daemon = Daemon::start().await;
    daemon.started("frozen", "sleep 1000").await;
    daemon.started("other", "sleep 1000").await;
    let shim = Pid::from_raw(daemon.shim("frozen")).unwrap();
    kill_process(shim, Signal::STOP).unwrap();
    let begun = Instant::now();
    assert_eq!(get(&daemon, "other").await.status(), Status::Running);
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(get(&daemon, "frozen").await.status(), Status::Unknown);
    daemon.kill();
    let begun = Instant::now();
    daemon.restart().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "silence does not hold up the start");
    end(&daemon, "other").await;
    kill_process(shim, Signal::CONT).unwrap();
    assert_eq!(get(&daemon, "frozen").await.status(), Status::Running);
    end(&daemon, "frozen").await;
}
