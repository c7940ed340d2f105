//! The live socket beside a log: every client gets all output from the moment it connects.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use container_log::Stream;
use container_log::attach::{HEADER_LEN, Header};

use crate::error::{TaskError, path_error};

/// Listens; its path is removed with it.
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    pub(crate) fn bind(path: &Path) -> Result<Self, TaskError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(path_error("remove", path)(error));
            }
            _ => {}
        }
        let socket = UnixListener::bind(path).map_err(path_error("bind", path))?;
        let listener = Self { socket, path: path.to_owned() };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .and_then(|()| listener.socket.set_nonblocking(true))
            .map_err(path_error("listen on", path))?;
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

/// The listener and whoever is attached.
pub(crate) struct Attach {
    listener: Listener,
    pub(crate) clients: Vec<Option<Client>>,
}

pub(crate) struct Client {
    socket: UnixStream,
    unsent: Vec<u8>,
    /// No more will be added: close when all is sent.
    closing: bool,
}

/// What became of a client after its socket was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alive {
    Idle,
    /// Bytes wait for room in the socket.
    Sending,
    Gone,
}

impl Attach {
    pub(crate) fn new(listener: Listener) -> Self {
        Self { listener, clients: Vec::new() }
    }

    /// Takes the next connection: its place, or `None` when nobody waits. Other users' are closed.
    pub(crate) fn accept(&mut self, closing: bool) -> io::Result<Option<usize>> {
        let socket = match self.listener.socket.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let free = self.clients.iter().position(Option::is_none);
        let place = free.unwrap_or(self.clients.len());
        if place >= MAX_CLIENTS || !crate::serve::is_same_user(&socket) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        socket.set_nonblocking(true)?;
        let client = Some(Client { socket, unsent: Vec::new(), closing });
        match self.clients.get_mut(place) {
            Some(slot) => *slot = client,
            None => self.clients.push(client),
        }
        Ok(Some(place))
    }

    /// Hands a chunk to every client.
    pub(crate) fn send(&mut self, stream: Stream, offset: u64, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let header = Header { stream, length, offset }.to_bytes();
        for client in self.clients.iter_mut().flatten() {
            client.push(&header, payload);
        }
    }

    /// True while a client has more unsent than it may.
    pub(crate) fn is_full(&self) -> bool {
        self.clients.iter().flatten().any(|client| client.unsent.len() >= MAX_UNSENT)
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.clients.iter().flatten().all(|client| client.unsent.is_empty())
    }

    pub(crate) fn finish(&mut self) {
        for client in self.clients.iter_mut().flatten() {
            client.closing = true;
        }
    }

    /// Sends what is possible and looks whether the client is still there.
    pub(crate) fn look(&mut self, place: usize) -> Alive {
        let Some(Some(client)) = self.clients.get_mut(place) else { return Alive::Gone };
        let alive = client.look();
        if alive == Alive::Gone {
            self.clients[place] = None;
        }
        alive
    }

    pub(crate) fn client(&self, place: usize) -> Option<BorrowedFd<'_>> {
        self.clients.get(place)?.as_ref().map(|client| client.socket.as_fd())
    }
}

impl AsFd for Attach {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.socket.as_fd()
    }
}

impl Client {
    fn push(&mut self, header: &[u8; HEADER_LEN], payload: &[u8]) {
        if self.closing {
            return;
        }
        let mut sent = 0;
        if self.unsent.is_empty() {
            let parts = [io::IoSlice::new(header), io::IoSlice::new(payload)];
            sent = self.socket.write_vectored(&parts).unwrap_or(0);
        }
        // A client that is gone is noticed by `look`; until then it costs a bounded buffer.
        if sent < HEADER_LEN {
            self.unsent.extend_from_slice(&header[sent..]);
        }
        self.unsent.extend_from_slice(&payload[sent.saturating_sub(HEADER_LEN)..]);
    }

    fn look(&mut self) -> Alive {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.socket.write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Alive::Gone,
            }
        }
        if sent == self.unsent.len() {
            self.unsent = Vec::new();
        } else {
            self.unsent.drain(..sent);
        }
        if self.closing && self.unsent.is_empty() {
            return Alive::Gone;
        }
        // Clients have nothing to say; reading shows whether they left.
        let mut ignored = [0; 256];
        loop {
            match self.socket.read(&mut ignored) {
                Ok(0) => return Alive::Gone,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Alive::Gone,
            }
        }
        if self.unsent.is_empty() { Alive::Idle } else { Alive::Sending }
    }
}

/// Unsent bytes of one client at which the container has to wait.
const MAX_UNSENT: usize = 1 << 20;
/// Clients of one process.
const MAX_CLIENTS: usize = 200;
