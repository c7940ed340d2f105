//! The file of a trace.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::{SpanId, TraceId};

/// How long a file may get; what comes later is lost.
pub const LIMIT: u64 = 64 << 10;

const HEAD: &str = "spans 1\n";
const ENDING: &str = "spans";

/// What a program did from when to when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub program: String,
    pub id: SpanId,
    pub parent: SpanId,
    pub start: u64,
    pub end: u64,
    pub name: String,
}

impl Span {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(6, ' ');
        let mut next = || parts.next();
        Some(Self {
            program: next()?.to_owned(),
            id: SpanId::parse(next()?)?,
            parent: SpanId::parse(next()?)?,
            start: next()?.parse().ok()?,
            end: next()?.parse().ok()?,
            name: next()?.to_owned(),
        })
    }
}

/// Where the spans of one trace are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// Makes the file in a directory of the caller's own.
    ///
    /// # Errors
    /// When it exists, or cannot be written.
    pub fn create(directory: &Path, trace: TraceId) -> io::Result<Self> {
        let path = directory.join(format!("{trace}.{ENDING}"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
        File::from(fd).write_all(HEAD.as_bytes())?;
        Ok(Self { path })
    }

    /// A file that somebody else named; `None` if a trace's has another name.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let trace = name.strip_suffix(ENDING)?.strip_suffix('.')?;
        TraceId::parse(trace).filter(|_| path.is_absolute())?;
        Some(Self { path: path.to_owned() })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds whole lines, if the file is there and a trace's. What is in the way of it is told to
    /// nobody: a trace is worth no failure.
    pub(crate) fn append(&self, lines: &str) {
        if let Ok(Some(mut file)) = self.open() {
            file.write_all(lines.as_bytes()).ok();
        }
    }

    fn open(&self) -> io::Result<Option<File>> {
        // Not blocking and never made: the name may be anything's.
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let fd: OwnedFd = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let found = rustix::fs::fstat(&fd)?;
        let ours = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
            && found.st_uid == rustix::process::geteuid().as_raw()
            && found.st_mode & 0o077 == 0
            && found.st_nlink == 1
            && u64::try_from(found.st_size).is_ok_and(|size| size < LIMIT);
        let file = File::from(fd);
        let mut head = [0; HEAD.len()];
        let whole = ours && file.read_exact_at(&mut head, 0).is_ok() && head == *HEAD.as_bytes();
        Ok(whole.then_some(file))
    }

    /// All spans, as they were written; a line that is none is left out.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self) -> io::Result<Vec<Span>> {
        let mut text = Vec::new();
        File::open(&self.path)?.take(2 * LIMIT).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.strip_prefix(HEAD).unwrap_or_default().lines().filter_map(Span::parse).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Caller, Page, Place};
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn caller() -> Caller {
        Caller::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap()
    }

    fn write(log: &Log, name: &str) {
        let mut page = Page::new("p", Place { caller: caller(), log: log.clone() });
        page.add(name, SpanId::parse("0000000000000001").unwrap(), caller().span, 5, 7);
        page.write();
    }

    #[test]
    fn spans_of_several_writers_are_read_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path(), caller().trace).unwrap();
        let other = Log::at(log.path()).unwrap();
        write(&log, "a name of words");
        write(&other, "b");
        let read = log.read().unwrap();
        let names: Vec<&str> = read.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["a name of words", "b"]);
        let first = &read[0];
        assert_eq!((first.program.as_str(), first.start, first.end), ("p", 5, 7));
        assert_eq!(
            (first.id.to_string().as_str(), first.parent),
            ("0000000000000001", caller().span)
        );
        assert!(Log::create(directory.path(), caller().trace).is_err(), "made once");
    }

    #[test]
    fn nothing_is_written_to_what_is_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path(), caller().trace).unwrap();
        let path = log.path();
        let text = || std::fs::read_to_string(path).unwrap();
        let mode = |mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o644);
        write(&log, "others could have put it there");
        mode(0o600);
        assert_eq!(text(), HEAD);
        std::fs::write(path, "something else\n").unwrap();
        write(&log, "no head");
        assert_eq!(text(), "something else\n");
        std::fs::write(path, HEAD).unwrap();
        let second = directory.path().join("second");
        std::fs::hard_link(path, &second).unwrap();
        write(&log, "two names");
        assert_eq!(text(), HEAD);
        std::fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink(&second, path).unwrap();
        write(&log, "a link");
        assert_eq!(std::fs::read_to_string(&second).unwrap(), HEAD);
        std::fs::remove_file(path).unwrap();
        write(&log, "gone");
        assert!(!path.exists(), "nobody but the engine makes it");
    }

    #[test]
    fn a_full_file_takes_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path(), caller().trace).unwrap();
        let name = "x".repeat(1000);
        for _ in 0..100 {
            write(&log, &name);
        }
        let length = std::fs::metadata(log.path()).unwrap().len();
        assert!((LIMIT..LIMIT + 2000).contains(&length), "{length}");
    }

    #[test]
    fn only_the_name_of_a_trace_names_a_file() {
        let good = "/run/x/4bf92f3577b34da6a3ce929d0e0e4736.spans";
        assert!(Log::at(Path::new(good)).is_some());
        for bad in [
            "4bf92f3577b34da6a3ce929d0e0e4736.spans",
            "/run/x/4bf92f3577b34da6a3ce929d0e0e4736",
            "/run/x/4bf92f3577b34da6a3ce929d0e0e4736spans",
            "/etc/shadow",
            "/dev/watchdog",
            "/",
        ] {
            assert_eq!(Log::at(Path::new(bad)), None, "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

        #[test]
        fn any_span_is_read_as_it_was_written(
            names in proptest::collection::vec("[^\n\r]{0,20}", 0..5), id: u64, start: u64, end: u64,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let log = Log::create(directory.path(), caller().trace).unwrap();
            let id = SpanId::parse(&format!("{id:016x}")).unwrap();
            let mut page = Page::new("p", Place { caller: caller(), log: log.clone() });
            names.iter().for_each(|name| page.add(name, id, caller().span, start, end));
            page.write();
            let wanted: Vec<Span> = names
                .into_iter()
                .map(|name| Span { program: "p".into(), id, parent: caller().span, start, end, name })
                .collect();
            prop_assert_eq!(log.read().unwrap(), wanted);
        }

        #[test]
        fn a_damaged_file_has_the_spans_that_are_whole(
            lines in proptest::collection::vec("([a-z]{0,3} [0-9a-f]{16} [0-9a-f]{15,16} -?[0-9]{1,21} [0-9]{0,3} |[^\n]{0,30})[a-z ]{0,3}", 0..6),
            bytes in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let log = Log::create(directory.path(), caller().trace).unwrap();
            let text = [HEAD.as_bytes(), lines.join("\n").as_bytes(), b"\n", &bytes].concat();
            std::fs::write(log.path(), text).unwrap();
            for span in log.read().unwrap() {
                let Span { program, id, parent, start, end, name } = span;
                let line = format!("{program} {id} {parent} {start} {end} {name}");
                let same = |given: &String| Span::parse(given.trim_end_matches('\r')).is_some_and(|span| span.name == name);
                prop_assert!(lines.iter().any(same) || line.contains('\u{fffd}'), "{}", line);
            }
        }
    }
}
