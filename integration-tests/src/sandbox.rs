//! Namespaces of a test's own: `guest sandbox` and what it is asked to do.
//!
//! The sandbox ends when this value is dropped or the test's process ends, however it ends; the
//! `guest` clears away the cgroups and the directory.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::parts;

/// How long anything may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
}

/// What the sandbox's cgroup view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// What the host shows.
    #[default]
    Host,
    V1,
    Hybrid,
    V2,
}

impl Layout {
    fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

/// A running sandbox.
pub struct Sandbox {
    outer: Child,
    input: Option<Mutex<ChildStdin>>,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    /// Init's pid as the test sees it.
    init: i32,
    name: String,
    root: PathBuf,
}

#[derive(Default)]
struct Heard {
    answers: VecDeque<String>,
    ended: BTreeMap<i32, Ended>,
    over: bool,
}

/// A process inside, seen from both sides.
#[derive(Debug, Clone)]
pub struct Process {
    /// As the test sees it.
    pub pid: i32,
    /// As the sandbox sees it.
    pub inner: i32,
    pub name: String,
    pub command: Vec<String>,
}

impl Sandbox {
    /// # Panics
    /// When the host cannot give what is asked for.
    #[must_use]
    pub fn start(layout: Layout) -> Self {
        Self::try_start(layout).unwrap_or_else(|problem| panic!("sandbox: {problem}"))
    }

    /// As [`Self::start`], for layouts that this host may not be able to show.
    ///
    /// # Errors
    /// With what the host cannot give.
    ///
    /// # Panics
    /// Without root.
    pub fn try_start(layout: Layout) -> Result<Self, String> {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let (name, root) = own_directory();
        let mut outer = Command::new(parts::ours("guest"))
            .arg("sandbox")
            .arg(&name)
            .arg(&root)
            .arg(layout.word())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Whoever interrupts the test by keyboard shall not interrupt the clearing up.
            .process_group(0)
            .spawn()
            .expect("guest starts");
        let input = Some(Mutex::new(outer.stdin.take().expect("a pipe")));
        let lines = BufReader::new(outer.stdout.take().expect("a pipe"));
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let told = Arc::clone(&heard);
        std::thread::spawn(move || listen(lines, &told));
        let mut sandbox = Self { outer, input, heard, init: 0, name, root };
        for _ in 0..2 {
            let answer = sandbox.answer();
            match answer.split_once('\t') {
                Some(("outer", pid)) => sandbox.init = pid.parse().expect("a pid"),
                None if answer == "ready" => {}
                _ => return Err(answer.trim_start_matches("failed\t").to_owned()),
            }
        }
        let lo = sandbox.inside(parts::busybox()).args(["ip", "link", "set", "lo", "up"]).status();
        assert!(lo.expect("nsenter runs").success(), "lo is up");
        Ok(sandbox)
    }

    /// The directory of this sandbox, the same inside and outside.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The prefix of everything of its own on the host, cgroups above all.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pid of the sandbox's init, as the test sees it.
    #[must_use]
    pub fn init(&self) -> i32 {
        self.init
    }

    /// An absolute path inside, as the test can open it.
    #[must_use]
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        let relative = inside.strip_prefix("/").unwrap_or(inside);
        PathBuf::from(format!("/proc/{}/root", self.init)).join(relative)
    }

    /// A command that will run in the sandbox's namespaces, with the caller's stdio.
    #[must_use]
    pub fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init.to_string(), "-m", "-n", "-p", "-i", "-C", "--"])
            .arg(program.as_ref());
        command
    }

    /// Runs a closure on a thread in the sandbox's network namespace, "on the host".
    ///
    /// # Panics
    /// When the closure does.
    pub fn on_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", self.init)).expect("a namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects from the sandbox's host side.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.on_network(|| TcpStream::connect_timeout(&address, PATIENCE))
    }

    /// A UDP socket on the sandbox's host side.
    ///
    /// # Panics
    /// When it cannot be had.
    #[must_use]
    pub fn udp(&self) -> UdpSocket {
        self.on_network(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket")
    }

    /// Starts a program as a child of init; output is appended to the log. Gives the pid inside.
    ///
    /// # Panics
    /// When it does not start.
    pub fn spawn(&self, log: &Path, environment: &[(String, String)], command: &[String]) -> i32 {
        let mut words = vec!["spawn".to_owned(), log.display().to_string()];
        words.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
        words.push("--".to_owned());
        words.extend_from_slice(command);
        let answer = self.ask(&words);
        let pid = answer.strip_prefix("started\t").and_then(|pid| pid.parse().ok());
        pid.unwrap_or_else(|| panic!("{command:?}: {answer}"))
    }

    /// Sends a signal to a pid of the inside.
    ///
    /// # Panics
    /// When it does not arrive.
    pub fn signal(&self, inner: i32, signal: i32) {
        let words = ["signal".to_owned(), inner.to_string(), signal.to_string()];
        assert_eq!(self.ask(&words), "ok", "signal {signal} for {inner}");
    }

    /// Mounts a file on another, inside only.
    ///
    /// # Panics
    /// When that fails.
    pub fn bind(&self, from: &Path, to: &Path) {
        let words = ["bind".to_owned(), from.display().to_string(), to.display().to_string()];
        assert_eq!(self.ask(&words), "ok", "{} on {}", from.display(), to.display());
    }

    /// Waits for the end of a child of init; children are all that [`Self::spawn`] started and
    /// orphans.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&self, inner: i32) -> Ended {
        let (lock, changed) = &*self.heard;
        let heard = lock.lock().expect("no panic holds it");
        let (heard, _) = changed
            .wait_timeout_while(heard, PATIENCE, |heard| {
                !heard.over && !heard.ended.contains_key(&inner)
            })
            .expect("no panic holds it");
        heard.ended.get(&inner).copied().unwrap_or_else(|| panic!("{inner} goes on"))
    }

    /// How a child of init ended, if it has.
    ///
    /// # Panics
    /// Never in practice.
    #[must_use]
    pub fn ended(&self, inner: i32) -> Option<Ended> {
        self.heard.0.lock().expect("no panic holds it").ended.get(&inner).copied()
    }

    /// All processes inside, init aside.
    ///
    /// # Panics
    /// When /proc cannot be read.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.init);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Some(pids) = inner_pids(pid) else { continue };
            // Containers have pid namespaces below ours: ours is the level above.
            let inner = if namespace(pid) == own {
                pids.last().copied()
            } else {
                let depth = inner_pids(self.init).map_or(2, |pids| pids.len());
                let below = pids.len() > depth && parent_in(pid, &own);
                below.then(|| pids[depth - 1])
            };
            let Some(inner) = inner.filter(|_| pid != self.init) else { continue };
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = command
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .filter(|word| !word.is_empty())
                .collect();
            found.push(Process { pid, inner, name: name.trim().to_owned(), command });
        }
        found
    }

    /// From a pid of the inside to the test's.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn outside(&self, inner: i32) -> i32 {
        self.processes()
            .iter()
            .find(|process| process.inner == inner)
            .map_or_else(|| panic!("no process {inner} inside"), |process| process.pid)
    }

    fn ask(&self, words: &[String]) -> String {
        assert!(words.iter().all(|word| !word.contains(['\t', '\n'])), "{words:?}");
        let input = self.input.as_ref().expect("open until the end");
        let mut input = input.lock().expect("no panic holds it");
        writeln!(input, "{}", words.join("\t")).expect("init listens");
        self.answer()
    }

    fn answer(&self) -> String {
        let (lock, changed) = &*self.heard;
        let heard = lock.lock().expect("no panic holds it");
        let (mut heard, _) = changed
            .wait_timeout_while(heard, PATIENCE, |heard| !heard.over && heard.answers.is_empty())
            .expect("no panic holds it");
        heard.answers.pop_front().expect("the sandbox answers")
    }

    /// Ends everything inside and waits until it is cleared away.
    pub fn end(&mut self) {
        drop(self.input.take());
        self.outer.wait().ok();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}

/// Polls for what the kernel does not announce.
///
/// # Panics
/// When it does not come true in time.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same for a value, whose last state a failure tells.
///
/// # Panics
/// When it is not as wanted in time.
pub fn until_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    mut value: impl FnMut() -> T,
    wanted: &T,
) {
    let end = Instant::now() + PATIENCE;
    loop {
        let last = value();
        if last == *wanted {
            return;
        }
        assert!(Instant::now() < end, "{what}: not in {PATIENCE:?}: {last:?}, wanted {wanted:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn listen(lines: impl BufRead, heard: &(Mutex<Heard>, Condvar)) {
    let (lock, changed) = heard;
    for line in lines.lines().map_while(Result::ok) {
        let mut heard = lock.lock().expect("no panic holds it");
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["exited", pid, how, number] => {
                let number = number.parse().unwrap_or(-1);
                let ended =
                    if *how == "exit" { Ended::Exit(number) } else { Ended::Signal(number) };
                heard.ended.insert(pid.parse().unwrap_or(0), ended);
            }
            _ => heard.answers.push_back(line),
        }
        changed.notify_all();
    }
    lock.lock().expect("no panic holds it").over = true;
    changed.notify_all();
}

/// The pids of a process from the outermost namespace we see to its own.
fn inner_pids(pid: i32) -> Option<Vec<i32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|pid| pid.parse().ok()).collect()
}

/// Whether some ancestor lives in the pid namespace.
fn parent_in(pid: i32, namespace: &Option<PathBuf>) -> bool {
    let mut pid = pid;
    while pid > 1 {
        if fs::read_link(format!("/proc/{pid}/ns/pid")).ok() == *namespace {
            return true;
        }
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        let Some((_, rest)) = stat.rsplit_once(')') else { return false };
        pid = rest.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).unwrap_or(0);
    }
    false
}

/// A directory with a short name (the paths of sockets are limited) that nobody else has.
fn own_directory() -> (String, PathBuf) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("it-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(&name);
        match fs::create_dir(&root) {
            Ok(()) => return (name, root),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => panic!("{}: {error}", root.display()),
        }
    }
}
