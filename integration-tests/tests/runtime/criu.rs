//! A criu that records what it is asked and answers what it is told: a script, which reads and writes
//! the messages of its socket as they are. What the runtime asks was watched of runc with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use prost::Message as _;
use tempfile::TempDir;

use crate::bundle::Bundle;

pub(crate) const DUMP: i32 = 1;
pub(crate) const RESTORE: i32 = 2;
pub(crate) const PRE_DUMP: i32 = 4;
const NOTIFY: i32 = 6;
pub(crate) const FEATURES: i32 = 9;
const VERSION: i32 = 10;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<Options>,
    #[prost(bool, tag = "3")]
    pub(crate) notified: bool,
    #[prost(message, optional, tag = "5")]
    pub(crate) features: Option<Features>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Options {
    #[prost(int32, tag = "1")]
    pub(crate) images: i32,
    #[prost(int32, tag = "2")]
    pub(crate) pid: i32,
    #[prost(bool, tag = "3")]
    pub(crate) leave_running: bool,
    #[prost(bool, tag = "4")]
    pub(crate) external_sockets: bool,
    #[prost(bool, tag = "5")]
    pub(crate) tcp_established: bool,
    #[prost(bool, tag = "6")]
    pub(crate) evasive_devices: bool,
    #[prost(bool, tag = "7")]
    pub(crate) shell_job: bool,
    #[prost(bool, tag = "8")]
    pub(crate) file_locks: bool,
    #[prost(int32, tag = "9")]
    pub(crate) log_level: i32,
    #[prost(string, tag = "10")]
    pub(crate) log_file: String,
    #[prost(message, optional, tag = "11")]
    pub(crate) page_server: Option<PageServer>,
    #[prost(bool, tag = "12")]
    pub(crate) notify: bool,
    #[prost(string, tag = "13")]
    pub(crate) root: String,
    #[prost(string, tag = "14")]
    pub(crate) parent: String,
    #[prost(bool, tag = "15")]
    pub(crate) track_memory: bool,
    #[prost(bool, tag = "16")]
    pub(crate) auto_dedup: bool,
    #[prost(int32, optional, tag = "17")]
    pub(crate) work: Option<i32>,
    #[prost(bool, tag = "18")]
    pub(crate) link_remap: bool,
    #[prost(message, repeated, tag = "23")]
    pub(crate) mounts: Vec<Pair>,
    #[prost(bool, tag = "24")]
    pub(crate) manage_cgroups: bool,
    #[prost(message, repeated, tag = "25")]
    pub(crate) cgroups: Vec<Pair>,
    #[prost(bool, tag = "26")]
    pub(crate) sibling: bool,
    #[prost(message, repeated, tag = "27")]
    pub(crate) inherited: Vec<Inherited>,
    #[prost(int32, optional, tag = "34")]
    pub(crate) cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub(crate) external: Vec<String>,
    #[prost(uint32, tag = "38")]
    pub(crate) empty_namespaces: u32,
    #[prost(message, repeated, tag = "39")]
    pub(crate) joined: Vec<Pair>,
    #[prost(string, tag = "44")]
    pub(crate) freezer: String,
    #[prost(bool, tag = "46")]
    pub(crate) skip_in_flight: bool,
    #[prost(bool, tag = "48")]
    pub(crate) lazy: bool,
    #[prost(int32, optional, tag = "49")]
    pub(crate) status: Option<i32>,
    #[prost(bool, tag = "50")]
    pub(crate) orphan_terminal: bool,
    #[prost(string, tag = "51")]
    pub(crate) configuration: String,
    #[prost(string, tag = "53")]
    pub(crate) profile: String,
    #[prost(string, tag = "63")]
    pub(crate) mount_context: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Pair {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Inherited {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(int32, tag = "2")]
    pub(crate) number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PageServer {
    #[prost(string, tag = "1")]
    pub(crate) address: String,
    #[prost(int32, tag = "2")]
    pub(crate) port: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Features {
    #[prost(bool, optional, tag = "1")]
    pub(crate) memory: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    pub(crate) lazy: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answer {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    /// Said, or it is no answer.
    #[prost(bool, required, tag = "2")]
    pub(crate) success: bool,
    #[prost(message, optional, tag = "5")]
    pub(crate) notice: Option<Notice>,
    #[prost(int32, tag = "7")]
    pub(crate) errno: i32,
    #[prost(message, optional, tag = "8")]
    pub(crate) features: Option<Features>,
    #[prost(message, optional, tag = "10")]
    pub(crate) version: Option<Version>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Notice {
    #[prost(string, tag = "1")]
    pub(crate) script: String,
    #[prost(int32, tag = "2")]
    pub(crate) pid: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Version {
    #[prost(int32, tag = "1")]
    pub(crate) major: i32,
    #[prost(int32, tag = "2")]
    pub(crate) minor: i32,
}

/// Answers a request of kind K with the files `K.1`, `K.2` … and keeps what it is told in between.
/// `before.K` is run first; a restore is told of the process that `program` is.
const SCRIPT: &str = r#"#!/bin/sh
# runc asks for the version on another number, which only bash can read from.
[ "$2" = 3 ] || exec bash -c 'exec 3<&"$1"; exec "$0" swrk 3' "$0" "$2"
cd "$(dirname "$0")" || exit 9
receive() { dd bs=65536 count=1 <&3 2>/dev/null >"$1"; }
varint() {
  n=$1
  while [ "$n" -ge 128 ]; do printf "\\$(printf %03o $((n % 128 + 128)))"; n=$((n / 128)); done
  printf "\\$(printf %03o "$n")"
}
receive incoming
kind=$(od -An -tu1 -j1 -N1 incoming | tr -d ' ')
mv incoming "request.$kind"
tr '\0' ' ' </proc/self/cgroup >"cgroup.$kind"
[ ! -e "before.$kind" ] || . "./before.$kind"
if [ -e program ] && [ "$kind" = 2 ]; then
  sh ./program &
  # Its last byte may be a line's end, which the shell would take off.
  pid=$(varint $!; printf .)
  pid=${pid%.}
  length=$((15 + $(printf %s "$pid" | wc -c)))
  { printf '\010\006\020\001\052'; varint $length; printf '\012\014post-restore\020%s' "$pid"; } >2.2
fi
n=1
while [ -e "$kind.$n" ]; do
  dd bs=65536 count=1 if="$kind.$n" >&3 2>/dev/null
  n=$((n + 1))
  [ ! -e "$kind.$n" ] || receive "told.$kind.$n"
done
exit "$(cat exit 2>/dev/null || echo 0)"
"#;

pub(crate) struct Criu(TempDir);

impl Criu {
    /// Says that it is 4.2; dumps and restores well.
    pub(crate) fn new() -> Self {
        let criu = Self(TempDir::new().unwrap());
        let program = criu.path().join("criu");
        fs::write(&program, SCRIPT).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let version = Some(Version { major: 4, minor: 2 });
        criu.answer(VERSION, &[Answer { version, ..good(VERSION) }]);
        for kind in [DUMP, PRE_DUMP, RESTORE] {
            criu.answer(kind, &[good(kind)]);
        }
        criu
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn answer(&self, kind: i32, answers: &[Answer]) {
        for (answer, number) in answers.iter().zip(1..) {
            let path = self.path().join(format!("{kind}.{number}"));
            fs::write(path, answer.encode_to_vec()).unwrap();
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    /// A restore brings this, and tells of it after it has told of namespaces.
    pub(crate) fn restores(&self, program: &str) {
        self.write("program", program);
        self.answer(RESTORE, &[notice("setup-namespaces"), good(RESTORE), good(RESTORE)]);
    }

    pub(crate) fn asked(&self, kind: i32) -> Option<Request> {
        let bytes = fs::read(self.path().join(format!("request.{kind}"))).ok()?;
        Some(Request::decode(bytes.as_slice()).unwrap())
    }

    pub(crate) fn options(&self, kind: i32) -> Options {
        self.asked(kind).expect("a request").options.expect("options")
    }

    /// The runtime with this criu and no other; exit code and standard error.
    pub(crate) fn call(&self, bundle: &Bundle, arguments: &[&str]) -> (Option<i32>, String) {
        self.call_with(bundle, arguments, Stdio::null())
    }

    pub(crate) fn call_with(
        &self,
        bundle: &Bundle,
        arguments: &[&str],
        output: Stdio,
    ) -> (Option<i32>, String) {
        let file = self.path().join("stderr");
        let mut command = bundle.command(arguments);
        let search = format!("{}:/usr/bin:/bin", self.path().display());
        command.env("PATH", search).stdout(output).stderr(file_at(&file));
        let status = command.status().unwrap();
        (status.code(), fs::read_to_string(&file).unwrap())
    }
}

fn file_at(path: &Path) -> fs::File {
    fs::OpenOptions::new().create(true).write(true).truncate(true).open(path).unwrap()
}

pub(crate) fn good(kind: i32) -> Answer {
    Answer { kind, success: true, ..Answer::default() }
}

pub(crate) fn notice(script: &str) -> Answer {
    Answer { notice: Some(Notice { script: script.to_owned(), pid: 1 }), ..good(NOTIFY) }
}
