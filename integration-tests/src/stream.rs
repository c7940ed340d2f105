//! Connections that become byte streams: attach and exec, with or without `Upgrade`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::sandbox::PATIENCE;

/// The connection after the answer's head.
pub struct Stream {
    pub status: u16,
    /// The answer's head, status line first.
    pub head: String,
    socket: UnixStream,
    rest: Vec<u8>,
}

impl Stream {
    pub(crate) fn open(socket: &Path, path: &str, body: Option<&Value>, upgrade: bool) -> Self {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = format!("POST {path} HTTP/1.1\r\nHost: docker\r\n");
        if upgrade {
            request += "Connection: Upgrade\r\nUpgrade: tcp\r\n";
        }
        if !body.is_empty() {
            request += "Content-Type: application/json\r\n";
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        Self::raw(socket, &request)
    }

    pub(crate) fn raw(socket: &Path, request: &str) -> Self {
        let socket = UnixStream::connect(socket).expect("the engine listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut stream = Self { status: 0, head: String::new(), socket, rest: Vec::new() };
        stream.request(request);
        stream
    }

    /// One more request on the same connection, as text; reads the answer's head.
    ///
    /// # Panics
    /// When there is none.
    pub fn request(&mut self, request: &str) {
        self.send(request);
        self.head = self.until("\r\n\r\n").trim_end().to_owned();
        self.status = self.head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    }

    /// Ends our direction only.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn close_write(&self) {
        self.socket.shutdown(Shutdown::Write).expect("half close");
    }

    /// # Panics
    /// When the connection is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("the engine reads");
    }

    /// Reads raw bytes until the needle is among them; gives all read since the last call.
    ///
    /// # Panics
    /// When the connection ends or stalls before.
    pub fn until(&mut self, needle: &str) -> String {
        let mut all = Vec::new();
        loop {
            if let Some(at) = find(&all, needle.as_bytes()) {
                self.rest = all.split_off(at + needle.len());
                return String::from_utf8_lossy(&all).into_owned();
            }
            let mut part = [0; 4096];
            let count = self.read(&mut part).unwrap_or_else(|error| {
                panic!("{error}, after {:?}", String::from_utf8_lossy(&all))
            });
            assert!(count > 0, "ended with {:?}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&part[..count]);
        }
    }

    /// Raw bytes to the end.
    ///
    /// # Panics
    /// When the end does not come.
    pub fn all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        match self.read_to_end(&mut all) {
            Ok(_) => all,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => all,
            Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&all)),
        }
    }

    /// stdout and stderr to the end.
    pub fn frames(&mut self) -> (String, String) {
        split_frames(&self.all())
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            return self.socket.read(into);
        }
        let count = self.rest.len().min(into.len());
        into[..count].copy_from_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Ok(count)
    }
}

/// Takes frames (one byte stream, three zero, four length) apart into stdout and stderr.
///
/// # Panics
/// When they are none.
#[must_use]
pub fn split_frames(mut bytes: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        assert_eq!(head[1..4], [0; 3], "no frame: {:?}", String::from_utf8_lossy(bytes));
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let length = usize::try_from(length).expect("fits");
        assert!(length <= rest.len(), "a frame of {length} bytes, {} are there", rest.len());
        let (payload, next) = rest.split_at(length);
        match head[0] {
            1 => out.extend_from_slice(payload),
            2 => err.extend_from_slice(payload),
            other => panic!("a frame of stream {other}"),
        }
        bytes = next;
    }
    assert!(bytes.is_empty(), "{} bytes of a head", bytes.len());
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(out), text(err))
}

fn find(all: &[u8], needle: &[u8]) -> Option<usize> {
    all.windows(needle.len()).position(|window| window == needle)
}
