//! Drives an engine with bollard, in this process.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, InspectContainerOptions,
    ListContainersOptionsBuilder, ListImagesOptions, LogsOptionsBuilder, RemoveContainerOptions,
    RemoveContainerOptionsBuilder, RemoveImageOptions, StartContainerOptions,
    WaitContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::io::AsyncWriteExt as _;
use tokio_stream::{Stream, StreamExt as _};

/// The library's version, as it was built in.
pub(super) fn version() -> String {
    let lock = include_str!("../../../../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains("name = \"bollard\"\n"));
    let version = entry.and_then(|entry| entry.split("version = \"").nth(1)?.split('"').next());
    version.expect("the lock file names it").to_owned()
}

/// All of it, against the engine at a socket; the image is one that a registry has.
pub(super) fn scenarios(socket: &Path, image: &str) {
    block_on(async {
        let docker = connect(socket).await;
        pull(&docker, image).await;
        runs(&docker).await;
        execs(&docker).await;
    });
}

pub(super) fn answers(socket: &Path) -> bool {
    block_on(async { connect(socket).await.ping().await.is_ok_and(|answer| answer == "OK") })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn connect(socket: &Path) -> Docker {
    let path = socket.to_str().expect("a path of ours");
    let docker = Docker::connect_with_unix(path, 60, API_DEFAULT_VERSION).expect("the socket");
    docker.negotiate_version().await.expect("a version that both know")
}

fn status(error: &Error) -> u16 {
    match error {
        Error::DockerResponseServerError { status_code, .. } => *status_code,
        other => panic!("no answer of an engine: {other}"),
    }
}

fn words(text: &[&str]) -> Option<Vec<String>> {
    Some(text.iter().map(|word| (*word).to_owned()).collect())
}

async fn create(docker: &Docker, name: &str, body: ContainerCreateBody) -> String {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    docker.create_container(Some(options), body).await.expect("a container").id
}

/// The exit code of a container that is started here.
async fn run(docker: &Docker, id: &str) -> i64 {
    let options = WaitContainerOptionsBuilder::default().condition("next-exit").build();
    let mut ended = std::pin::pin!(docker.wait_container(id, Some(options)));
    let start = docker.start_container(id, None::<StartContainerOptions>);
    // Asked for before the start; the library asks when it is first polled.
    let (end, started) = tokio::join!(biased; ended.next(), start);
    started.expect("it starts");
    match end.expect("an answer") {
        Ok(answer) => answer.status_code,
        Err(Error::DockerContainerWaitError { code, .. }) => code,
        Err(other) => panic!("{other}"),
    }
}

/// What is said on stdout and on stderr.
async fn read(stream: impl Stream<Item = Result<LogOutput, Error>>) -> (String, String) {
    let mut stream = std::pin::pin!(stream);
    let (mut out, mut err) = (String::new(), String::new());
    while let Some(piece) = stream.next().await {
        match piece.expect("a frame") {
            LogOutput::StdOut { message } => out += &String::from_utf8_lossy(&message),
            LogOutput::StdErr { message } => err += &String::from_utf8_lossy(&message),
            other => panic!("a frame of neither: {other:?}"),
        }
    }
    (out, err)
}

async fn logs(docker: &Docker, id: &str) -> (String, String) {
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).build();
    read(docker.logs(id, Some(options))).await
}

async fn pull(docker: &Docker, image: &str) {
    let options = CreateImageOptionsBuilder::default().from_image(image).build();
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, None));
    let mut told = Vec::new();
    while let Some(line) = progress.next().await {
        told.extend(line.expect("progress").status);
    }
    let wanted = format!("Status: Downloaded newer image for {image}");
    assert_eq!(told.last(), Some(&wanted), "{told:#?}");
    let images = docker.list_images(None::<ListImagesOptions>).await.expect("images");
    assert!(images.iter().any(|one| one.repo_tags == [image]), "{images:#?}");

    let body = ContainerCreateBody { image: Some(image.to_owned()), ..Default::default() };
    let id = create(docker, "pulled", body).await;
    assert_eq!(run(docker, &id).await, 0);
    assert_eq!(logs(docker, &id).await, ("from the registry\n".to_owned(), String::new()));
    docker.remove_container(&id, None::<RemoveContainerOptions>).await.expect("removing it");
    let removed = docker.remove_image(image, None::<RemoveImageOptions>, None).await;
    let removed = removed.expect("removing the image");
    assert!(removed.iter().any(|item| item.untagged.as_deref() == Some(image)), "{removed:?}");
}

async fn runs(docker: &Docker) {
    let body = ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: words(&["sh", "-c", "echo out $WORD; echo err >&2; exit 3"]),
        env: words(&["WORD=value"]),
        ..Default::default()
    };
    let id = create(docker, "rust", body).await;
    assert_eq!(run(docker, &id).await, 3);
    assert_eq!(logs(docker, &id).await, ("out value\n".to_owned(), "err\n".to_owned()));
    let found = docker.inspect_container("rust", None::<InspectContainerOptions>).await;
    let state = found.expect("it is there").state.expect("a state");
    assert_eq!(state.exit_code, Some(3));
    docker.remove_container("rust", None::<RemoveContainerOptions>).await.expect("removing it");
    let gone = docker.inspect_container("rust", None::<InspectContainerOptions>).await;
    assert_eq!(status(&gone.expect_err("it is gone")), 404);
    let nothing =
        ContainerCreateBody { image: Some("nothing/there".to_owned()), ..Default::default() };
    let refused = docker.create_container(None, nothing).await;
    assert_eq!(status(&refused.expect_err("there is no such image")), 404);
}

async fn execs(docker: &Docker) {
    let body = ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: words(&["sleep", "1000"]),
        labels: Some(HashMap::from([("by".to_owned(), "bollard".to_owned())])),
        ..Default::default()
    };
    let id = create(docker, "work", body).await;
    docker.start_container(&id, None::<StartContainerOptions>).await.expect("it starts");
    let filters = HashMap::from([("label", vec!["by=bollard"])]);
    let options = ListContainersOptionsBuilder::default().filters(&filters).build();
    let list = docker.list_containers(Some(options)).await.expect("a list");
    assert_eq!(list.len(), 1, "{list:#?}");
    assert_eq!(list[0].names, words(&["/work"]));

    let script = "read line; echo got $line; echo err >&2; exit 4";
    let options = CreateExecOptions {
        cmd: words(&["sh", "-c", script]),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..Default::default()
    };
    let exec = docker.create_exec(&id, options).await.expect("an exec").id;
    match docker.start_exec(&exec, None).await.expect("it starts") {
        StartExecResults::Attached { output, mut input } => {
            input.write_all(b"typed\n").await.expect("it reads");
            assert_eq!(read(output).await, ("got typed\n".to_owned(), "err\n".to_owned()));
        }
        StartExecResults::Detached => panic!("it was asked to attach"),
    }
    let ended = docker.inspect_exec(&exec).await.expect("the exec");
    assert_eq!((ended.running, ended.exit_code), (Some(false), Some(4)));

    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&id, Some(options)).await.expect("removing it");
    let options = ListContainersOptionsBuilder::default().all(true).build();
    assert_eq!(docker.list_containers(Some(options)).await.expect("a list"), []);
}
