//! A container's cgroup as a unit of systemd's: a transient scope (or a slice) that is asked for over
//! D-Bus, see org.freedesktop.systemd1(5). Systemd makes the directories and puts the first process into
//! them; what it has no property for goes to the files as without it.
//!
//! The client is our own: `zbus` brings an executor and its threads, `rustbus` a second set of bindings
//! of the kernel; what is needed here are five calls and one signal.

mod bus;
pub(super) mod properties;
mod text;
mod wire;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::devices::DevicePolicy;
use crate::spec::oci::LinuxResources;
use bus::Bus;
pub(crate) use bus::BusError;
pub(crate) use text::AnnotationError;
use wire::{Kind, Message, Value};

/// Kept with the container's record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Unit {
    name: String,
    /// What it is in, by the name of a unit.
    slice: String,
    container: String,
    /// Of the user's own manager; else of the system's.
    user: bool,
    /// Of the annotations; nobody needs them again.
    #[serde(skip)]
    extra: Vec<(String, Value)>,
}

impl Unit {
    /// `cgroups_path`: `SLICE:PREFIX:NAME`, or nothing.
    pub(super) fn new(
        cgroups_path: Option<&str>,
        id: &str,
        annotations: &BTreeMap<String, String>,
        user: bool,
    ) -> Result<Self, Error> {
        // Compat: runc's sentence; sd_booted(3).
        if !std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|entry| entry.is_dir()) {
            return Err(Error::NoSystemd);
        }
        let default = if user { "user.slice" } else { "system.slice" };
        let (slice, prefix, container) = match cgroups_path.filter(|path| !path.is_empty()) {
            None => (default, "runc", id),
            Some(path) => match path.split(':').collect::<Vec<_>>().as_slice() {
                ["", prefix, name] => (default, *prefix, *name),
                [slice, prefix, name] => (*slice, *prefix, *name),
                _ => return Err(Error::UnitPath(path.to_owned())),
            },
        };
        let name = match container.ends_with(".slice") {
            true => container.to_owned(),
            false => format!("{prefix}-{container}.scope"),
        };
        // It becomes the name of a directory.
        if name.contains('/') {
            return Err(Error::UnitPath(cgroups_path.unwrap_or(id).to_owned()));
        }
        let extra = text::properties(annotations).map_err(Error::Annotation)?;
        let (slice, container) = (slice.to_owned(), container.to_owned());
        expand_slice(&slice)?;
        Ok(Self { name, slice, container, user, extra })
    }

    /// Where systemd will make it, from the root of a hierarchy.
    pub(super) fn place(&self) -> Result<PathBuf, Error> {
        let below = expand_slice(&self.slice)?;
        let mut place = PathBuf::from("/");
        if self.user {
            let mut manager = Manager::connect(self.user)?;
            let root = manager.property("ControlGroup")?;
            place.push(super::layout::clean(&root).strip_prefix("/").unwrap_or(&PathBuf::new()));
        }
        place.push(below.trim_start_matches('/'));
        place.push(&self.name);
        Ok(place)
    }

    /// Starts it around `pid`, on cgroup2 or the older hierarchies. On these with its device rules: where a
    /// slice has none yet and they come later, systemd moves every process of it into the slice's own
    /// directory, which has no rules, and leaves it there.
    pub(super) fn start(
        &self,
        pid: i32,
        unified: bool,
        resources: &LinuxResources,
    ) -> Result<(), Started> {
        let mut manager = Manager::connect(self.user).map_err(Started::Never)?;
        let flag = |name: &str| (name.to_owned(), Value::Bool(true));
        let description = format!("libcontainer container {}", self.container);
        let mut all = vec![("Description".to_owned(), Value::Text(description))];
        if self.name.ends_with(".slice") {
            all.push(("Wants".to_owned(), Value::array("s", [Value::text(&self.slice)])));
        } else {
            all.push(("Slice".to_owned(), Value::text(&self.slice)));
            all.push(flag("Delegate"));
        }
        let pid = u32::try_from(pid).unwrap_or(0);
        all.push(("PIDs".to_owned(), Value::array("u", [Value::U32(pid)])));
        let io = if unified { "IOAccounting" } else { "BlockIOAccounting" };
        all.extend(["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"].map(flag));
        all.push(("DefaultDependencies".to_owned(), Value::Bool(false)));
        all.extend(self.extra.iter().cloned());
        if !unified {
            let devices = DevicePolicy::new(&resources.devices)
                .map_err(|error| Started::Never(Error::DeviceRule(error)))?;
            let version = manager.version().map_err(Started::Never)?;
            all.extend(owned(properties::devices_of_v1(&devices, version)));
        } else if let Some(policy) = properties::oom_policy(resources)
            && manager.version().map_err(Started::Never)? >= properties::OOM_POLICY_SINCE
        {
            all.push(("OOMPolicy".to_owned(), policy));
        }
        let failed = |error: BusError| Error::UnitStart(self.name.clone(), error);
        let body = vec![
            Value::text(&self.name),
            Value::text("replace"),
            structs(all),
            Value::array("(sa(sv))", []),
        ];
        let mut started = manager.job("StartTransientUnit", body.clone());
        if matches!(&started, Err(BusError::Told { name, .. }) if name.ends_with(".UnitExists")) {
            // One that has failed stays until it is told not to.
            manager.reset_failed(&self.name);
            started = manager.job("StartTransientUnit", body);
        }
        match started {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                manager.reset_failed(&self.name);
                Err(Started::Perhaps(Error::UnitResult(self.name.clone(), result)))
            }
            Err(error @ BusError::Told { .. }) => Err(Started::Never(failed(error))),
            Err(error) => Err(Started::Perhaps(failed(error))),
        }
    }

    /// Also where it is gone already, or nobody can be asked: the directories are ours to remove.
    pub(super) fn stop(&self) -> Result<(), Error> {
        let Ok(mut manager) = Manager::connect(self.user) else { return Ok(()) };
        let body = vec![Value::text(&self.name), Value::text("replace")];
        let stopped = manager.job("StopUnit", body);
        if let Err(error @ BusError::Silent { .. }) = stopped {
            return Err(Error::UnitStop(self.name.clone(), error));
        }
        manager.reset_failed(&self.name);
        Ok(())
    }

    /// `devices`: on cgroup2.
    pub(super) fn set(
        &self,
        unified: bool,
        resources: &LinuxResources,
        devices: Option<&DevicePolicy>,
    ) -> Result<(), Error> {
        let mut manager = Manager::connect(self.user)?;
        let version = manager.version()?;
        let all = match unified {
            true => properties::of_v2(resources, devices, version)?,
            false => properties::of_v1(resources, version)?,
        };
        let body = vec![Value::text(&self.name), Value::Bool(true), structs(owned(all))];
        manager.call("SetUnitProperties", body).map_err(Error::UnitSet)?;
        Ok(())
    }

    /// For a process that its user may not move itself. `place`: of the unit, or below.
    pub(super) fn attach(&self, pid: i32, place: &Path) -> Result<(), Error> {
        let mut manager = Manager::connect(self.user)?;
        let pid = Value::U32(u32::try_from(pid).unwrap_or(0));
        let below = Value::Text(below(&self.name, place));
        let body = vec![Value::text(&self.name), below, Value::array("u", [pid])];
        manager.call("AttachProcessesToUnit", body).map_err(Error::UnitAttach)?;
        Ok(())
    }
}

/// `/a/b` of `…/NAME/a/b`.
fn below(name: &str, place: &Path) -> String {
    let parts = place.iter().skip_while(|part| *part != name).skip(1);
    let path: PathBuf = [OsStr::new("/")].into_iter().chain(parts).collect();
    path.to_string_lossy().into_owned()
}

/// Why it was not started, and whether it may be there all the same.
#[derive(Debug)]
pub(super) enum Started {
    Never(Error),
    Perhaps(Error),
}

fn owned(all: properties::Properties) -> Vec<(String, Value)> {
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn structs(all: Vec<(String, Value)>) -> Value {
    let pair =
        |(name, value)| Value::Struct(vec![Value::Text(name), Value::Variant(Box::new(value))]);
    Value::array("(sv)", all.into_iter().map(pair))
}

/// `a-b.slice` is `/a.slice/a-b.slice`: a dash is a step down.
fn expand_slice(slice: &str) -> Result<String, Error> {
    let invalid = || Error::Slice(slice.to_owned());
    let stem =
        slice.strip_suffix(".slice").filter(|stem| !stem.contains('/')).ok_or_else(invalid)?;
    if stem == "-" {
        return Ok("/".to_owned());
    }
    let (mut path, mut prefix) = (String::new(), String::new());
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        prefix.push_str(part);
        path.push_str(&format!("/{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

/// `v252.1-3`, `"245"`: the first number.
fn version_number(text: &str) -> Option<u32> {
    let text = text.trim_start_matches(['"', 'v']);
    text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// systemd at the other end of a bus.
struct Manager {
    bus: Bus,
}

impl Manager {
    fn connect(user: bool) -> Result<Self, Error> {
        let bus = if user { Bus::session() } else { Bus::system() };
        Ok(Self { bus: bus.map_err(Error::Bus)? })
    }

    fn call(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>, BusError> {
        self.bus.call(&Message { body, ..message(MANAGER, member) })
    }

    /// A call that starts a job; how that ended.
    fn job(&mut self, member: &str, body: Vec<Value>) -> Result<String, BusError> {
        let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
        self.bus.listen(rule)?;
        let answer = self.call(member, body)?;
        let job = answer.first().and_then(Value::as_text).unwrap_or_default().to_owned();
        self.bus.wait("the end of a job", |signal| job_result(signal, &job))
    }

    fn property(&mut self, name: &str) -> Result<String, Error> {
        let body = vec![Value::text(MANAGER), Value::text(name)];
        let get = Message { body, ..message("org.freedesktop.DBus.Properties", "Get") };
        let answer = self.bus.call(&get).map_err(Error::Bus)?;
        match answer.into_iter().next() {
            Some(Value::Variant(value)) => Ok(value.as_text().unwrap_or_default().to_owned()),
            _ => Ok(String::new()),
        }
    }

    /// Compat: one that does not tell is taken for the oldest.
    fn version(&mut self) -> Result<u32, Error> {
        match self.property("Version") {
            Ok(text) => Ok(version_number(&text).unwrap_or(0)),
            Err(Error::Bus(BusError::Told { .. })) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// One that has not failed is no error.
    fn reset_failed(&mut self, name: &str) {
        drop(self.call("ResetFailedUnit", vec![Value::text(name)]));
    }
}

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

fn message(interface: &str, member: &str) -> Message {
    Message {
        path: "/org/freedesktop/systemd1".to_owned(),
        interface: interface.to_owned(),
        member: member.to_owned(),
        destination: "org.freedesktop.systemd1".to_owned(),
        ..Message::default()
    }
}

/// `JobRemoved(id, job, unit, result)` of one job.
fn job_result(signal: &Message, job: &str) -> Option<String> {
    if signal.kind != Kind::Signal || signal.interface != MANAGER || signal.member != "JobRemoved" {
        return None;
    }
    match signal.body.as_slice() {
        [_, Value::Path(removed), _, Value::Text(result)] if removed == job => Some(result.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_a_path() {
        let path = |slice| expand_slice(slice).ok();
        assert_eq!(path("system.slice"), Some("/system.slice".into()));
        assert_eq!(path("a-b-c.slice"), Some("/a.slice/a-b.slice/a-b-c.slice".into()));
        assert_eq!(path("-.slice"), Some("/".into()));
        for wrong in
            ["", ".slice", "a", "a-.slice", "-a.slice", "a--b.slice", "a/b.slice", "a.scope"]
        {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_place_below_a_unit_is_a_path_of_its_own() {
        let below = |place: &str| below("a.scope", Path::new(place));
        assert_eq!(below("/sys/fs/cgroup/b.slice/a.scope"), "/");
        assert_eq!(below("/sys/fs/cgroup/b.slice/a.scope/c/d"), "/c/d");
    }

    #[test]
    fn the_version_is_its_first_number() {
        for (text, number) in [
            ("252.39-1~deb12u1", Some(252)),
            ("v245", Some(245)),
            ("\"v245.4\"", Some(245)),
            ("x", None),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }

    #[test]
    fn a_job_ends_with_its_own_signal() {
        let signal = |job: &str, member: &str| Message {
            kind: Kind::Signal,
            body: vec![
                Value::U32(1),
                Value::Path(job.into()),
                Value::text("a.scope"),
                Value::text("done"),
            ],
            ..message(MANAGER, member)
        };
        assert_eq!(job_result(&signal("/j/1", "JobRemoved"), "/j/1"), Some("done".into()));
        assert_eq!(job_result(&signal("/j/2", "JobRemoved"), "/j/1"), None);
        assert_eq!(job_result(&signal("/j/1", "JobNew"), "/j/1"), None);
        let short = Message { body: vec![Value::U32(1)], ..signal("/j/1", "JobRemoved") };
        assert_eq!(job_result(&short, "/j/1"), None);
    }
}
