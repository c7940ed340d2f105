//! A container that writes numbered lines as long as it is let, and what it must have written.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use integration_tests::Stack;
use integration_tests::image::digest;
use integration_tests::sandbox::until;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{pid, shell_with};

/// Bytes of a line, its end included.
const LINE: usize = 100;
const CHUNK: usize = 2000;
/// Its own code, for an end on SIGTERM.
pub(crate) const CODE: i64 = 5;

/// The writer: at most 13 MB a second, so that the disk lives through a slow test.
pub(crate) struct Writer<'a> {
    stack: &'a Stack,
    pub(crate) id: String,
    pub(crate) pid: i32,
    log: PathBuf,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    stream: &'a str,
}

impl<'a> Writer<'a> {
    pub(crate) fn start(stack: &'a Stack, log_options: Value) -> Self {
        let log = json!({"Type": "json-file", "Config": log_options});
        let id = stack.api().run("writer", &shell_with(&script(), json!({"LogConfig": log})));
        let path = stack.api().inspect(&id)["LogPath"].as_str().unwrap().to_owned();
        let writer = Self { stack, pid: pid(stack, &id), log: PathBuf::from(path), id };
        writer.goes_on(1);
        writer
    }

    /// Waits until it has written this many bytes more, by the log on the disk.
    pub(crate) fn goes_on(&self, bytes: usize) {
        let wanted = self.last_number() + bytes.div_ceil(LINE);
        until("the writer goes on", || self.last_number() >= wanted);
    }

    /// Ends it as its owner does, and compares what it wrote with what the engine tells and with
    /// what lies on the disk.
    pub(crate) fn finish(self) {
        let api = self.stack.api();
        let mut wait = api
            .try_open(http::Method::POST, &format!("/containers/{}/wait", self.id), None, &[])
            .unwrap();
        api.post(&format!("/containers/{}/stop?t=15", self.id)).expect(204);
        assert_eq!(wait.value().unwrap()["StatusCode"], CODE);
        let told = api.get(&format!("/containers/{}/logs?stdout=1&stderr=1", self.id)).expect(200);
        let (out, err) = told.streams();
        assert_eq!(err, "");
        let last = out.trim_end().rsplit('\n').next().unwrap();
        let lines = last.strip_prefix("end ").unwrap_or_else(|| panic!("its last line is {last}"));
        let wanted = expected(lines.parse().unwrap());
        same("docker logs", &out, &wanted);
        same("the files", &self.on_disk(), &wanted);
    }

    fn on_disk(&self) -> String {
        let mut all = String::new();
        for file in self.files() {
            let text = std::fs::read_to_string(&file).unwrap();
            for line in text.lines() {
                let record: Record<'_> = serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("{}: {error}: {line}", file.display()));
                assert_eq!(record.stream, "stdout", "{line}");
                all += &record.log;
            }
        }
        all
    }

    /// The log's files, the oldest first.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let rotated = |number: u32| PathBuf::from(format!("{}.{number}", self.log.display()));
        let mut files: Vec<PathBuf> = (1..).map(rotated).take_while(|path| path.exists()).collect();
        files.reverse();
        files.push(self.log.clone());
        files
    }

    /// The number of the last whole line in the log.
    fn last_number(&self) -> usize {
        // Newest first; the newest may have been begun only now.
        let newest = [self.log.clone(), PathBuf::from(format!("{}.1", self.log.display()))];
        newest.iter().find_map(|file| last_number(file)).unwrap_or(0)
    }
}

fn script() -> String {
    let pad = "x".repeat(LINE - 12);
    format!(
        "n=1; trap stop=1 TERM
         while [ -z \"$stop\" ]; do
           awk -v n=$n 'BEGIN {{ for (i = n; i < n + {CHUNK}; i++) printf \"%010d {pad}\\n\", i }}'
           n=$((n + {CHUNK})); usleep 15000
         done
         echo end $n; exit {CODE}"
    )
}

fn expected(end: usize) -> String {
    let pad = "x".repeat(LINE - 12);
    let mut text = String::with_capacity(end * LINE + 20);
    for number in 1..end {
        writeln!(text, "{number:010} {pad}").unwrap();
    }
    writeln!(text, "end {end}").unwrap();
    text
}

/// Equal, or where they part.
#[track_caller]
fn same(what: &str, found: &str, wanted: &str) {
    if found == wanted {
        return;
    }
    let differs = found.lines().zip(wanted.lines()).position(|(found, wanted)| found != wanted);
    let line = differs.unwrap_or(found.lines().count().min(wanted.lines().count()));
    let shown = |text: &str| text.lines().skip(line).take(3).collect::<Vec<_>>().join("\n");
    panic!(
        "{what}: {} bytes {} in place of {} bytes {}; from line {}:\n{}\nin place of\n{}",
        found.len(),
        digest(found.as_bytes()),
        wanted.len(),
        digest(wanted.as_bytes()),
        line + 1,
        shown(found),
        shown(wanted)
    );
}

fn last_number(file: &Path) -> Option<usize> {
    let mut file = File::open(file).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2048))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let (whole, _) = tail.rsplit_once('\n')?;
    let (_, record) = whole.rsplit_once("{\"log\":\"")?;
    record.get(..10)?.parse().ok()
}
