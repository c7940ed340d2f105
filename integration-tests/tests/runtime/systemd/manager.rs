//! systemd as a runtime sees it: a bus that answers, remembers what it was asked, and makes cgroups.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::dbus::{self, Call, Told};
use crate::bundle::unified;

/// What is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Jobs end with this.
    JobsEnd(&'static str),
    /// A unit of the name is there until it is reset.
    Exists,
    /// Transient units are refused.
    Refuses,
    /// After the greeting, these bytes and no more.
    Says(&'static [u8]),
    /// The connection ends at the first call of this name.
    Hangs(&'static str),
    /// It is no bus, but systemd itself.
    Direct,
    /// Nobody gets in.
    Rejects,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    calls: Vec<Call>,
    /// And where they are in a hierarchy.
    units: BTreeMap<String, PathBuf>,
    /// Of the user's manager, below which its units are.
    root: String,
    listeners: Vec<UnixStream>,
    everyone: Vec<UnixStream>,
}

#[derive(Debug, Clone)]
pub(crate) struct Manager {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Manager {
    /// Listens in `directory` until the test ends.
    pub(crate) fn new(directory: &Path, mood: Mood, root: &str) -> Self {
        let socket = directory.join("bus");
        let listener = UnixListener::bind(&socket).unwrap();
        let state = State {
            mood,
            calls: Vec::new(),
            units: BTreeMap::new(),
            root: root.to_owned(),
            listeners: Vec::new(),
            everyone: Vec::new(),
        };
        let manager = Self { socket, state: Arc::new(Mutex::new(state)) };
        let own = manager.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (own, stream) = (own.clone(), stream.unwrap());
                std::thread::spawn(move || own.serve(stream));
            }
        });
        manager
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }

    /// What was asked of systemd, but for its version.
    pub(crate) fn calls(&self) -> Vec<(String, Vec<Value>)> {
        let state = self.state.lock().unwrap();
        let asked = state.calls.iter().filter(|call| call.interface.contains("systemd1"));
        asked.map(|call| (call.member.clone(), call.body.clone())).collect()
    }

    pub(crate) fn forget(&self) {
        self.state.lock().unwrap().calls.clear();
    }

    fn serve(self, stream: UnixStream) {
        let mood = self.state.lock().unwrap().mood;
        let mut from = BufReader::new(stream.try_clone().unwrap());
        let mut to = &stream;
        if greet(&mut from, to, mood).is_none() {
            return;
        }
        self.state.lock().unwrap().everyone.push(stream.try_clone().unwrap());
        if let Mood::Says(bytes) = mood {
            drop(to.write_all(bytes));
        }
        while let Some(call) = dbus::read(&mut from) {
            if mood == Mood::Hangs(call_name(&call, mood)) {
                drop(stream.shutdown(std::net::Shutdown::Both));
                return;
            }
            if matches!(mood, Mood::Says(_)) {
                continue;
            }
            let mut state = self.state.lock().unwrap();
            state.calls.push(call.clone());
            if mood == Mood::Direct && call.interface == "org.freedesktop.DBus" {
                assert_eq!(call.member, "AddMatch", "there is nobody to greet");
                let name = "org.freedesktop.DBus.Error.UnknownObject";
                drop(to.write_all(&dbus::error(call.serial, name, "no bus")));
                continue;
            }
            let (answer, signal) = state.answer(&call, &stream);
            drop(to.write_all(&answer));
            if let Some(signal) = signal.as_ref().filter(|_| mood == Mood::Direct) {
                state.everyone.retain(|mut client| client.write_all(signal).is_ok());
            } else if let Some(signal) = signal {
                state.listeners.retain(|mut listener| listener.write_all(&signal).is_ok());
            }
        }
    }
}

fn call_name(call: &Call, mood: Mood) -> &'static str {
    match mood {
        Mood::Hangs(name) if name == call.member => name,
        _ => "",
    }
}

/// The words before the first message.
fn greet(from: &mut BufReader<UnixStream>, mut to: &UnixStream, mood: Mood) -> Option<()> {
    loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8(line).unwrap();
        let answer = match line.trim_start_matches('\0').trim_end() {
            "BEGIN" => return Some(()),
            _ if mood == Mood::Rejects => "REJECTED EXTERNAL\r\n",
            "NEGOTIATE_UNIX_FD" => "AGREE_UNIX_FD\r\n",
            "AUTH EXTERNAL" => "DATA\r\n",
            // Whose the connection is, the kernel says.
            "DATA" => "OK 0123456789abcdef\r\n",
            _ => "REJECTED EXTERNAL\r\n",
        };
        to.write_all(answer.as_bytes()).ok()?;
    }
}

impl State {
    fn answer(&mut self, call: &Call, stream: &UnixStream) -> (Vec<u8>, Option<Vec<u8>>) {
        let to = call.serial;
        let text = |at: usize| call.body.get(at).and_then(Value::as_str).unwrap_or_default();
        let unit = text(0).to_owned();
        let missing = || dbus::error(to, "org.freedesktop.systemd1.NoSuchUnit", "not loaded");
        match call.member.as_str() {
            "Hello" => (dbus::answer(to, &[Told::Text(":1.7")]), None),
            "AddMatch" => {
                self.listeners.push(stream.try_clone().unwrap());
                (dbus::answer(to, &[]), None)
            }
            "Get" => {
                let told =
                    if text(1) == "ControlGroup" { self.root.clone() } else { "252.39".to_owned() };
                (dbus::answer(to, &[Told::Variant(&told)]), None)
            }
            "StartTransientUnit" if self.mood == Mood::Refuses => (
                dbus::error(to, "org.freedesktop.DBus.Error.InvalidArgs", "no such property"),
                None,
            ),
            "StartTransientUnit" if self.mood == Mood::Exists => {
                let words = "already loaded";
                (dbus::error(to, "org.freedesktop.systemd1.UnitExists", words), None)
            }
            "StartTransientUnit" => {
                let place = self.make(&unit, &call.body[2]);
                self.units.insert(unit.clone(), place);
                self.job(to, &unit)
            }
            "StopUnit" if self.units.remove(&unit).is_some() => self.job(to, &unit),
            "StopUnit" => (missing(), None),
            "ResetFailedUnit" if self.mood == Mood::Exists => {
                self.mood = Mood::Well;
                (dbus::answer(to, &[]), None)
            }
            "ResetFailedUnit" => (missing(), None),
            "SetUnitProperties" => (dbus::answer(to, &[]), None),
            "AttachProcessesToUnit" => {
                put(&self.units[&unit].join(text(1).trim_start_matches('/')), &call.body[2]);
                (dbus::answer(to, &[]), None)
            }
            other => panic!("{other}"),
        }
    }

    /// The signal comes before the answer, as it may.
    fn job(&mut self, to: u32, unit: &str) -> (Vec<u8>, Option<Vec<u8>>) {
        let job = format!("/org/freedesktop/systemd1/job/{to}");
        let result = if let Mood::JobsEnd(result) = self.mood { result } else { "done" };
        let body =
            |job, result| [Told::Number(to), Told::Path(job), Told::Text(unit), Told::Text(result)];
        // Somebody else's ends too.
        let others = dbus::signal("JobRemoved", &body("/org/freedesktop/systemd1/job/0", "failed"));
        let own = dbus::signal("JobRemoved", &body(&job, result));
        (dbus::answer(to, &[Told::Path(&job)]), Some([others, own].concat()))
    }

    /// Where the unit is.
    fn make(&self, unit: &str, properties: &Value) -> PathBuf {
        let find = |name: &str| {
            let all = properties.as_array().unwrap().iter();
            all.clone().find(|property| property[0] == name).map(|property| property[1].clone())
        };
        let slice = find("Slice").unwrap_or_else(|| find("Wants").unwrap()[0].clone());
        let slice = super::expanded(slice.as_str().unwrap());
        let place = Path::new(self.root.trim_start_matches('/')).join(slice).join(unit);
        put(&place, &find("PIDs").unwrap());
        place
    }
}

/// On cgroup2, and in the hierarchy of its own, systemd is the one who puts processes into their
/// place.
fn put(place: &Path, pids: &Value) {
    let hierarchies: &[&str] = if unified() { &[""] } else { &["systemd", "unified"] };
    for hierarchy in hierarchies {
        let root = Path::new("/sys/fs/cgroup").join(hierarchy);
        if !root.join("cgroup.procs").exists() {
            continue;
        }
        fs::create_dir_all(root.join(place)).unwrap();
        for pid in pids.as_array().unwrap() {
            fs::write(root.join(place).join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
}
