//! A socket between the client and the engine that can hold one kind of request back.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};

use integration_tests::Stack;
use integration_tests::sandbox::PATIENCE;

/// For a client that opens a connection for each request, as docker-rs does.
pub(crate) struct Relay {
    /// For `-H`.
    pub(crate) host: String,
    socket: PathBuf,
    asked: Receiver<String>,
    gate: Arc<Gate>,
}

struct Gate {
    engine: PathBuf,
    /// What a request line that is held back ends with, until it may go on.
    held: Mutex<Option<&'static str>>,
    opened: Condvar,
}

impl Relay {
    /// Holds back requests whose path ends so.
    pub(crate) fn holding(stack: &Stack, path: &'static str) -> Self {
        let socket = stack.root().join("relay.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (engine, held) = (stack.socket(), Mutex::new(Some(path)));
        let gate = Arc::new(Gate { engine, held, opened: Condvar::new() });
        let (tell, asked) = channel();
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (gate, tell) = (Arc::clone(&shared), tell.clone());
                std::thread::spawn(move || gate.serve(client, &tell));
            }
        });
        Self { host: format!("unix://{}", socket.display()), socket, asked, gate }
    }

    /// Waits until something has been asked for; gives the heads of all requests up to it.
    #[track_caller]
    pub(crate) fn until(&self, part: &str) -> Vec<String> {
        let mut heads = Vec::new();
        while !heads.last().is_some_and(|head: &String| head.contains(part)) {
            match self.asked.recv_timeout(PATIENCE) {
                Ok(head) => heads.push(head),
                Err(_) => panic!("{part:?} is not among {heads:?}"),
            }
        }
        heads
    }

    /// Lets go on what is held back.
    pub(crate) fn release(&self) {
        *self.gate.held.lock().unwrap() = None;
        self.gate.opened.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.release();
        std::fs::remove_file(&self.socket).ok();
    }
}

impl Gate {
    fn serve(&self, mut client: UnixStream, tell: &Sender<String>) -> Option<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&head).lines().next()?.to_owned();
        tell.send(String::from_utf8_lossy(&head).into_owned()).ok();
        let path = line.split([' ', '?']).nth(1)?;
        let held = self.held.lock().unwrap();
        drop(self.opened.wait_while(held, |held| held.is_some_and(|end| path.ends_with(end))));
        let mut engine = UnixStream::connect(&self.engine).ok()?;
        engine.write_all(&head).ok()?;
        let (from, to) = (client.try_clone().ok()?, engine.try_clone().ok()?);
        std::thread::spawn(move || pump(from, to));
        pump(engine, client);
        Some(())
    }
}

/// Copies to the end, and passes the end on.
fn pump(mut from: UnixStream, mut to: UnixStream) {
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Write).ok();
}
