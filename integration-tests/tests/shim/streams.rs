//! When fifos are opened and closed, logging programs, and who may talk to the shim at all.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use proto::containerd::task::v2 as api;
use serde_json::json;

use crate::client::{Connection, Events, PATIENCE, Shim, open_reader, read_all};

/// True once all that was there is read and nobody has the fifo open for writing.
fn has_ended(mut reader: &fs::File) -> bool {
    matches!(reader.read(&mut [0; 4096]), Ok(0))
}

fn start(shim: &Shim, link: &mut Connection, request: &api::CreateTaskRequest) {
    let _: api::CreateTaskResponse = link.call("Create", request).unwrap();
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
}

/// Opens a fifo's writing end, if somebody reads it.
fn open_writer(path: &str) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

#[test]
fn outputs_are_closed_at_their_end_and_stdin_at_the_delete() {
    // Compat: so does the stock shim (strace of containerd 1.6).
    let shim = Shim::start("echo out; exec >&-; read x; echo err >&2");
    let mut link = shim.connect();
    let (input, out, err) = (shim.fifo("in"), shim.fifo("out"), shim.fifo("err"));
    let (out_reader, err_reader) = (open_reader(&out), open_reader(&err));
    let request = api::CreateTaskRequest {
        stdin: input.clone(),
        stdout: out,
        stderr: err,
        ..shim.create_request()
    };
    start(&shim, &mut link, &request);
    // The client's streams stay open however often it looks, until the process closes its own.
    let mut seen = [0; 16];
    crate::lifecycle::until("the output", || (&out_reader).read(&mut seen).is_ok_and(|n| n == 4));
    crate::lifecycle::until("the end of stdout", || has_ended(&out_reader));
    let error = (&err_reader).read(&mut seen).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "stderr goes on");
    fs::write(&input, "\n").unwrap();
    let ended: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    assert_eq!(ended.exit_status, 0);
    assert_eq!(read_all(err_reader), "err\n");
    open_writer(&input).expect("stdin is read until the delete");
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
    assert_eq!(open_writer(&input).unwrap_err().raw_os_error(), Some(libc::ENXIO));
}

#[test]
fn a_client_that_comes_after_the_end_finds_all_output_and_its_end() {
    let shim = Shim::start("echo early");
    let mut link = shim.connect();
    let out = shim.fifo("out");
    let request = api::CreateTaskRequest { stdout: out.clone(), ..shim.create_request() };
    start(&shim, &mut link, &request);
    let _: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    // Blocks until somebody has the writing end, as upstream's clients do.
    let mut text = String::new();
    fs::File::open(&out).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "early\n");
}

#[test]
fn an_exit_is_told_when_the_client_has_read_what_was_written() {
    // Compat: ctr closes its ends of the fifos when it hears of the exit. Over the stock shim, which
    // tells at once, it loses what still lies in them (ctr 1.6 and 2.1).
    let shim = Shim::start("head -c 100000 /dev/zero; echo end >&2");
    let mut link = shim.connect();
    let (out, err) = (shim.fifo("out"), shim.fifo("err"));
    let (mut reader, err_reader) = (open_reader(&out), open_reader(&err));
    let request = api::CreateTaskRequest { stdout: out, stderr: err, ..shim.create_request() };
    let created: api::CreateTaskResponse = link.call("Create", &request).unwrap();
    let exit = link.send("Wait", &shim.wait_request(""));
    let _: api::StartResponse = link.call("Start", &shim.start_request("")).unwrap();
    crate::lifecycle::until("the process is reaped", || {
        !Path::new(&format!("/proc/{}", created.pid)).exists()
    });
    assert_eq!(read_all(err_reader), "end\n");
    let mut read = 0;
    while read < 100_000 {
        let asked: api::StateResponse = link.call("State", &shim.state_request("")).unwrap();
        assert_eq!(asked.id, shim.id);
        assert!(!link.has_answer(exit), "told of the exit after {read} bytes");
        crate::lifecycle::until("more output", || {
            reader.read(&mut [0; 8192]).is_ok_and(|count| {
                read += count;
                count > 0
            })
        });
    }
    let ended: api::WaitResponse = link.receive(exit).unwrap();
    assert_eq!(ended.exit_status, 0);
    assert!(has_ended(&reader));
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
}

#[test]
fn a_client_that_never_comes_does_not_hold_the_delete_for_long() {
    let shim = Shim::start("echo lost");
    let mut link = shim.connect();
    let request = api::CreateTaskRequest { stdout: shim.fifo("out"), ..shim.create_request() };
    start(&shim, &mut link, &request);
    let _: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    let begun = Instant::now();
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

/// A logging program: copies descriptor 3 and 4 into files, says on 5 that it is ready.
fn logger(shim: &Shim, ready: &str) -> std::path::PathBuf {
    let path = shim.path("logger");
    let directory = path.parent().unwrap().display().to_string();
    let script = format!(
        "#!/bin/sh\ncd {directory}\n\
         echo \"$CONTAINER_NAMESPACE $CONTAINER_ID $*\" >log-start\n\
         cat <&3 >log-out 3<&- 4<&- 5>&- &\ncat <&4 >log-err 3<&- 4<&- 5>&- &\n{ready}\n\
         exec 3<&- 4<&- 5>&-\nwait\necho done >log-end\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn logged(shim: &Shim, scheme: &str, ready: &str) {
    let program = logger(shim, ready);
    let mut link = shim.connect();
    let uri = format!("{scheme}://{}?first=1&word=a%20b", program.display());
    let request =
        api::CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..shim.create_request() };
    start(shim, &mut link, &request);
    let ended: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    assert_eq!(ended.exit_status, 0);
    let text = |name: &str| fs::read_to_string(shim.path(name)).unwrap_or_default();
    crate::lifecycle::until("the logger ends with its input", || text("log-end") == "done\n");
    assert_eq!(text("log-out"), "to out\n");
    assert_eq!(text("log-err"), "to err\n");
    assert_eq!(text("log-start"), format!("shim-test {} first 1 word a b\n", shim.id));
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
}

#[test]
fn a_logging_program_gets_the_output_itself() {
    logged(&Shim::start("echo to out; echo to err >&2"), "binary", "");
}

#[test]
fn a_logging_program_of_the_second_kind_says_that_it_is_ready() {
    logged(&Shim::start("echo to out; echo to err >&2"), "binary-v2", "echo >&5");
}

#[test]
fn a_logging_program_that_fails_fails_the_create() {
    let shim = Shim::start("true");
    let mut link = shim.connect();
    let program = logger(&shim, "exit 1");
    let stdout = format!("binary-v2://{}", program.display());
    let request = api::CreateTaskRequest { stdout, ..shim.create_request() };
    let error = link.call::<api::CreateTaskResponse>("Create", &request).unwrap_err();
    assert!(error.message.contains("start logger"), "{}", error.message);
}

/// Connects as a user that is not the shim's, from a thread that ends with it.
fn connect_as_nobody(path: &Path) -> io::Result<UnixStream> {
    let path = path.to_owned();
    let thread = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody)?;
        UnixStream::connect(path)
    });
    thread.join().unwrap()
}

#[test]
fn connections_of_another_user_are_closed() {
    let shim = Shim::start("sleep 60");
    let mut link = shim.connect();
    let log = shim.path("x-json.log");
    let live = shim.path("a.s");
    let stdout = format!("json-file://{}?attach={}", log.display(), live.display());
    start(&shim, &mut link, &api::CreateTaskRequest { stdout, ..shim.create_request() });
    for socket in [shim.socket(), live.as_path()] {
        let error = connect_as_nobody(socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{}", socket.display());
    }
    // Even where the file system would let them in.
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for directory in [shim.path(""), shim.path("s")] {
        open(&directory, 0o755);
    }
    for socket in [shim.socket(), live.as_path()] {
        open(socket, 0o666);
        let mut stranger = connect_as_nobody(socket).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        match stranger.read(&mut [0; 1]) {
            Ok(count) => assert_eq!(count, 0, "{}", socket.display()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
    let state: api::StateResponse = shim.connect().call("State", &shim.state_request("")).unwrap();
    assert_eq!(state.status, 2);
}

#[test]
fn a_container_that_exceeds_its_memory_is_told_of_before_its_exit() {
    let limit = 16 << 20;
    let shim = Shim::start_with("exec dd if=/dev/zero of=/dev/null bs=64M count=1", |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": limit, "swap": limit}});
    });
    let mut events = Events::listen(&shim);
    let mut link = shim.connect();
    start(&shim, &mut link, &shim.create_request());
    let ended: api::WaitResponse = link.call("Wait", &shim.wait_request("")).unwrap();
    assert_eq!(ended.exit_status, 137);
    let wanted = ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"];
    assert_eq!(events.topics(4), wanted);
    let _: api::DeleteResponse = link.call("Delete", &shim.delete_request("")).unwrap();
    assert_eq!(events.topics(1), ["/tasks/delete"]);
}
