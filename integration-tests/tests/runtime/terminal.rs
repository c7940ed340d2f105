//! Terminals over `--console-socket`.

use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use integration_tests::terminal::{self, Terminal};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;

use crate::bundle::{Bundle, stderr};

/// One message with one descriptor.
pub(crate) fn receive(stream: &UnixStream) -> (String, OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0_u8; 256];
    let message = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let text = String::from_utf8_lossy(&bytes[..message.bytes]).into_owned();
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (text, fd.unwrap())
}

fn receive_master(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().unwrap();
    let (text, fd) = receive(&stream);
    assert!(text.contains("ptmx"), "{text}");
    fd
}

/// Reads to the terminal's end, which is an error of its own.
fn read_all(master: OwnedFd) -> String {
    let mut file = std::fs::File::from(master);
    let mut text = Vec::new();
    let mut buffer = [0_u8; 4096];
    while let Ok(length) = file.read(&mut buffer) {
        if length == 0 {
            break;
        }
        text.extend(&buffer[..length]);
    }
    String::from_utf8_lossy(&text).replace("\r\n", "\n")
}

#[test]
fn the_master_is_sent_and_the_terminal_works() {
    let mut bundle = Bundle::new("tty; busybox stty size < /dev/tty; read line; echo got $line");
    bundle.process()["terminal"] = json!(true);
    bundle.process()["consoleSize"] = json!({"height": 33, "width": 99});
    let socket = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    bundle.detached(&[
        "create",
        "--bundle",
        bundle.path().to_str().unwrap(),
        "--console-socket",
        socket.to_str().unwrap(),
        &bundle.id,
    ]);
    let master = receive_master(&listener);
    std::fs::File::from(master.try_clone().unwrap()).write_all(b"hello\n").unwrap();
    bundle.detached(&["start", &bundle.id]);
    let text = read_all(master);
    for line in ["/dev/pts/0\n", "33 99\n", "got hello\n"] {
        assert!(text.contains(line), "{line:?} in {text:?}");
    }
}

#[test]
fn in_the_foreground_lines_end_as_the_callers_terminal_ends_them() {
    let mut bundle = Bundle::new("echo one; test -t 0 && echo two");
    bundle.process()["terminal"] = json!(true);
    let run = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    let (text, code) = Terminal::of(&run, 24, 80).until_end();
    assert_eq!((text.as_str(), code), ("one\r\ntwo\r\n", 0));
    // Only the input is a terminal: nobody makes anything of the line ends.
    let (_master, input) = terminal::pair();
    let mut run = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    let output = run.stdin(input).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n", "{}", stderr(&output));
}

#[test]
fn exec_gets_a_terminal_of_its_own() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let socket = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    bundle.detached(&[
        "exec",
        "-t",
        "-d",
        "--console-socket",
        socket.to_str().unwrap(),
        &bundle.id,
        "tty",
    ]);
    assert_eq!(read_all(receive_master(&listener)), "/dev/pts/0\n");
}

#[test]
fn a_terminal_without_anyone_to_take_it_is_refused() {
    let mut bundle = Bundle::new("true");
    bundle.process()["terminal"] = json!(true);
    let output = bundle.call(&["create", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output)
            .contains("cannot allocate tty if runc will detach without setting console socket"),
        "{}",
        stderr(&output)
    );
}
