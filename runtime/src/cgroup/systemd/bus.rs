//! A connection to a message bus, or to systemd itself: the D-Bus Specification, "Authentication
//! Protocol" and "Server Addresses". One call at a time, signals kept until somebody waits for them.
//! Whoever is at the other end may be anybody and has a limited time for everything.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags};

use super::wire::{Kind, Message, Value, WireError};
use crate::sys::{self, errno_of, errno_text};

#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    #[error("dial unix {}: connect: {}", path.to_string_lossy(), errno_text(errno_of(cause)))]
    Connect { path: OsString, cause: io::Error },
    #[error("no address of a bus that can be used: {0:?}")]
    Address(String),
    // Compat: runc's sentence.
    #[error(
        "could not detect DBUS_SESSION_BUS_ADDRESS from the environment; make sure you have \
         installed the dbus-user-session or dbus-daemon package; note you may need to re-login"
    )]
    NoSession,
    #[error("dbus: authentication failed: {0:?}")]
    Refused(String),
    #[error("dbus: {call}: {}", errno_text(errno_of(cause)))]
    Io { call: &'static str, cause: io::Error },
    #[error("dbus: connection closed by the other side")]
    Closed,
    #[error("dbus: {0}")]
    Wire(WireError),
    #[error("dbus: no answer to {what} within {} seconds", patience.as_secs())]
    Silent { what: String, patience: Duration },
    #[error("{text}")]
    Told { name: String, text: String },
}

/// For the answer to a call, and for the end of a job. Compat: runc's thirty seconds.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Bus {
    socket: OwnedFd,
    serial: u32,
    /// Read and not yet a message.
    buffer: Vec<u8>,
    signals: Vec<Message>,
    patience: Duration,
    /// Systemd itself is at the other end, which tells everyone everything and knows no bus.
    direct: bool,
}

impl Bus {
    /// The system's, or where it has none systemd's own door, which is root's.
    pub(super) fn system() -> Result<Self, BusError> {
        let address = std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").filter(|text| !text.is_empty());
        let address = address.unwrap_or_else(|| "unix:path=/var/run/dbus/system_bus_socket".into());
        let error = match Self::of_bus(&address) {
            Err(error) if rustix::process::geteuid().is_root() => error,
            result => return result,
        };
        let direct = Self::dial("unix:path=/run/systemd/private".as_ref());
        match direct.map(|bus| Self { direct: true, ..bus }) {
            // The first one is what the administrator meant.
            Err(BusError::Connect { .. })
                if std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").is_some() =>
            {
                Err(error)
            }
            result => result,
        }
    }

    /// Of the user whose manager runs the session.
    pub(super) fn session() -> Result<Self, BusError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let address = set("DBUS_SESSION_BUS_ADDRESS").or_else(|| {
            let path = Path::new(&set("XDG_RUNTIME_DIR")?).join("bus");
            path.exists().then(|| {
                let mut address = OsString::from("unix:path=");
                address.push(escaped(path.as_os_str().as_bytes()));
                address
            })
        });
        Self::of_bus(&address.ok_or(BusError::NoSession)?)
    }

    fn of_bus(address: &std::ffi::OsStr) -> Result<Self, BusError> {
        let mut bus = Self::dial(address)?;
        bus.call(&bus_call("Hello", Vec::new()))?;
        Ok(bus)
    }

    fn dial(address: &std::ffi::OsStr) -> Result<Self, BusError> {
        let path = parse_address(address.as_bytes())
            .ok_or_else(|| BusError::Address(address.to_string_lossy().into_owned()))?;
        let socket = sys::socket::connect_stream(&path)
            .map_err(|cause| BusError::Connect { path, cause })?;
        Self::authenticate(socket, PATIENCE)
    }

    fn authenticate(socket: OwnedFd, patience: Duration) -> Result<Self, BusError> {
        let mut bus = Self {
            socket,
            serial: 0,
            buffer: Vec::new(),
            signals: Vec::new(),
            patience,
            direct: false,
        };
        // The first byte carries the credentials, which say it all: in a user namespace we do not know
        // what the other side calls us. All at once, as systemd's own clients do it: its server does not
        // look at a call that it has read together with the last of these words.
        bus.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let deadline = bus.deadline();
        let mut line = bus.line(deadline)?;
        if line == "DATA" {
            line = bus.line(deadline)?;
        }
        if !line.starts_with("OK ") {
            return Err(BusError::Refused(line));
        }
        Ok(bus)
    }

    fn line(&mut self, deadline: Instant) -> Result<String, BusError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.buffer.len() > 4096 {
                return Err(BusError::Refused("a line without an end".to_owned()));
            }
            self.receive("authentication", deadline)?;
        }
    }

    /// Has the signals of this rule sent to us.
    pub(super) fn listen(&mut self, rule: &str) -> Result<(), BusError> {
        if self.direct {
            return Ok(());
        }
        self.call(&bus_call("AddMatch", vec![Value::text(rule)])).map(drop)
    }

    /// The answer's body.
    pub(super) fn call(&mut self, call: &Message) -> Result<Vec<Value>, BusError> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&Message { serial, ..call.clone() }.to_bytes())?;
        let deadline = self.deadline();
        loop {
            let message = self.message(&call.member, deadline)?;
            match message.kind {
                Kind::Return if message.reply_to == Some(serial) => return Ok(message.body),
                Kind::Error if message.reply_to == Some(serial) => {
                    let text = message.body.first().and_then(Value::as_text);
                    let text = text.unwrap_or(&message.error).to_owned();
                    return Err(BusError::Told { name: message.error, text });
                }
                Kind::Signal => self.signals.push(message),
                _ => {}
            }
            // What nobody will ask for is not kept for ever.
            if self.signals.len() > 1024 {
                self.signals.remove(0);
            }
        }
    }

    /// What `pick` makes of the first signal that it wants, be it one that has come already.
    pub(super) fn wait<T>(
        &mut self,
        what: &str,
        pick: impl Fn(&Message) -> Option<T>,
    ) -> Result<T, BusError> {
        let deadline = self.deadline();
        let mut kept = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match kept.next() {
                Some(message) => message,
                None => self.message(what, deadline)?,
            };
            if message.kind == Kind::Signal
                && let Some(picked) = pick(&message)
            {
                return Ok(picked);
            }
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    fn message(&mut self, what: &str, deadline: Instant) -> Result<Message, BusError> {
        loop {
            if let Some(length) = Message::length(&self.buffer).map_err(BusError::Wire)?
                && self.buffer.len() >= length
            {
                let bytes: Vec<u8> = self.buffer.drain(..length).collect();
                return Message::parse(&bytes).map_err(BusError::Wire);
            }
            self.receive(what, deadline)?;
        }
    }

    fn receive(&mut self, what: &str, deadline: Instant) -> Result<(), BusError> {
        let failed =
            |call| move |errno: rustix::io::Errno| BusError::Io { call, cause: errno.into() };
        self.ready(PollFlags::IN, what, deadline)?;
        let mut bytes = [0_u8; 4096];
        match rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(BusError::Closed),
            Ok((length, _)) => self.buffer.extend(&bytes[..length]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Err(BusError::Closed),
            Err(error) => return Err(failed("read")(error)),
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        let deadline = self.deadline();
        let mut rest = bytes;
        while !rest.is_empty() {
            self.ready(PollFlags::OUT, "a call", deadline)?;
            match rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => rest = &rest[sent..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                    return Err(BusError::Closed);
                }
                Err(error) => return Err(BusError::Io { call: "write", cause: error.into() }),
            }
        }
        Ok(())
    }

    fn ready(&self, flags: PollFlags, what: &str, deadline: Instant) -> Result<(), BusError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(BusError::Silent { what: what.to_owned(), patience: self.patience });
            }
            let mut fds = [PollFd::new(&self.socket, flags)];
            match rustix::event::poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(BusError::Io { call: "poll", cause: error.into() }),
            }
        }
    }
}

/// A call of the bus itself.
fn bus_call(member: &str, body: Vec<Value>) -> Message {
    Message {
        path: "/org/freedesktop/DBus".to_owned(),
        interface: "org.freedesktop.DBus".to_owned(),
        member: member.to_owned(),
        destination: "org.freedesktop.DBus".to_owned(),
        body,
        ..Message::default()
    }
}

/// The first Unix socket of the addresses; an abstract one with `@` before its name.
fn parse_address(addresses: &[u8]) -> Option<OsString> {
    addresses.split(|byte| *byte == b';').find_map(|address| {
        let pairs = address.strip_prefix(b"unix:")?;
        pairs.split(|byte| *byte == b',').find_map(|pair| {
            if let Some(path) = pair.strip_prefix(b"path=") {
                return unescaped(path).map(OsString::from_vec);
            }
            let name = unescaped(pair.strip_prefix(b"abstract=")?)?;
            Some(OsString::from_vec([b"@", name.as_slice()].concat()))
        })
    })
}

fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            plain.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        plain.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(plain)
}

fn escaped(path: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_/.\\*".contains(byte);
    path.iter()
        .map(
            |byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn peer(answer: impl FnOnce(&mut UnixStream) + Send + 'static) -> Result<Bus, BusError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let peer = std::thread::spawn(move || {
            let mut line = [0; 100];
            let length = theirs.read(&mut line).unwrap();
            assert_eq!(&line[..length], b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
            answer(&mut theirs);
            // Until we are gone.
            let mut rest = Vec::new();
            drop(theirs.read_to_end(&mut rest));
        });
        let patience = Duration::from_millis(50);
        let bus = Bus::authenticate(ours.into(), patience);
        let bus = bus.and_then(|mut bus| bus.call(&bus_call("Hello", Vec::new())).map(|_| bus));
        if bus.is_err() {
            peer.join().unwrap();
        }
        bus
    }

    fn told(answer: &'static [u8]) -> String {
        peer(move |stream| stream.write_all(answer).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_peer_that_is_none_is_told_of() {
        assert_eq!(
            told(b"REJECTED EXTERNAL\r\n"),
            "dbus: authentication failed: \"REJECTED EXTERNAL\""
        );
        assert_eq!(told(&[b'x'; 5000]), "dbus: authentication failed: \"a line without an end\"");
        assert_eq!(told(b"DATA\r\nOK 1\r\nHTTP/1.1 400 Bad Request\r\n"), "dbus: no D-Bus message");
        let long = b"OK 1\r\nl\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0";
        assert_eq!(told(long), "dbus: a message of 4294967311 bytes");
    }

    #[test]
    fn a_peer_that_says_nothing_is_not_waited_for_for_ever() {
        let error = peer(|_| {}).unwrap_err();
        assert!(matches!(&error, BusError::Silent { what, .. } if what == "authentication"));
        let error = peer(|stream| stream.write_all(b"OK 1\r\n").unwrap()).unwrap_err();
        assert!(matches!(&error, BusError::Silent { what, .. } if what == "Hello"), "{error}");
        // Nor one that says a little every now and then.
        let error = peer(|stream| {
            stream.write_all(b"OK 1\r\nl\x02").unwrap();
            while stream.write_all(&[0]).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        assert!(error.is_err());
    }

    #[test]
    fn a_peer_that_closes_is_told_of() {
        let error = peer(|stream| {
            stream.write_all(b"OK 1\r\nl\x02\0\x01").unwrap();
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        });
        assert_eq!(error.unwrap_err().to_string(), "dbus: connection closed by the other side");
    }

    #[test]
    fn addresses_name_a_socket() {
        let parse =
            |text: &str| parse_address(text.as_bytes()).map(|path| path.into_string().unwrap());
        assert_eq!(parse("unix:path=/run/a%20b,guid=1"), Some("/run/a b".into()));
        assert_eq!(parse("tcp:host=x;unix:guid=2,abstract=/tmp/x"), Some("@/tmp/x".into()));
        for none in ["", "unix:", "tcp:host=x", "unix:path=%2", "unix:tmpdir=/x"] {
            assert_eq!(parse(none), None, "{none}");
        }
        assert_eq!(parse(&format!("unix:path={}", escaped(b"/a b"))), Some("/a b".into()));
    }
}
