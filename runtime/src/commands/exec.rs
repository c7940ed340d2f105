//! `exec`: a further process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};

use super::admission::{Inside, born_of_stage, clone_inside, enter_cgroups};
use super::create::{
    Bundle, connect_console, hand_over_listener, send_pidfd, warn_of_capabilities, warn_of_landlock,
};
use super::outside::{apply_limits, apply_oom_score, apply_schedule, reset_affinity};
use super::{Globals, Usage, listen_fds, parse, program, write_pid_file};
use crate::args::{Flag, Order, Parsed};
use crate::cgroup::Cgroup;
use crate::container::{Container, Record, Status};
use crate::foreground::Foreground;
use crate::init::handshake::{FromInit, InitEnd, RuntimeEnd};
use crate::init::{self, Entry};
use crate::rootless;
use crate::seccomp::Program;
use crate::spec::landlock::LandlockPlan;
use crate::spec::oci::{Capabilities, Process, User};
use crate::spec::process::ProcessPlan;
use crate::spec::schedule::MemoryPolicyPlan;
use crate::sys::clone::{Side, pidfd_open};
use crate::sys::host::Host;
use crate::sys::{self, errno_of, errno_text};
use crate::trace::Laps;

pub(super) const FLAGS: &[Flag] = &[
    ("console-socket", "", true),
    ("pidfd-socket", "", true),
    ("cwd", "", true),
    ("env", "e", true),
    ("tty", "t", false),
    ("user", "u", true),
    ("additional-gids", "g", true),
    ("process", "p", true),
    ("detach", "d", false),
    ("pid-file", "", true),
    ("process-label", "", true),
    ("apparmor", "", true),
    ("no-new-privs", "", false),
    ("cap", "c", true),
    ("preserve-fds", "", true),
    ("cgroup", "", true),
    ("ignore-paused", "", false),
];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let parsed = parse(arguments, FLAGS, Order::UntilProgram)?;
    let Some(id) = parsed.words.first() else {
        bail!(Usage(format!("{}: \"exec\" requires a minimum of 1 argument(s)", program())));
    };
    execute(globals, id, &parsed).context("exec failed")
}

fn execute(globals: &Globals, id: &str, parsed: &Parsed) -> anyhow::Result<u8> {
    let mut laps = Laps::part("exec", &globals.timings);
    let container = Container::load(&globals.root, id)?;
    match container.status() {
        // Compat: runc's sentences.
        Status::Stopped => bail!("cannot exec in a stopped container"),
        // Its mount namespace still shows the host, and its filter may not be written yet.
        Status::Creating => bail!("cannot exec in a container that is being created"),
        Status::Paused if !parsed.is_set("ignore-paused") => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => {}
    }
    let mut process = process(&container, parsed)?;
    let inherited = &container.record.inherited;
    inherited.fill(&mut process);
    if rootless::unprivileged() && !process.user.additional_gids.is_empty() {
        bail!(rootless::NO_GROUPS);
    }
    warn_of_capabilities(globals, &process);
    let mut plan = ProcessPlan::new(&process, rootless::capabilities_to_give())?;
    plan.fixed_groups = rootless::groups_are_fixed();
    plan.personality = inherited.personality;
    plan.memory_policy = inherited.memory_policy.as_ref().map(MemoryPolicyPlan::new).transpose()?;
    plan.landlock = LandlockPlan::of(&container.record.annotations)?;
    warn_of_landlock(globals, &plan);
    let listen = listen_fds();
    plan.preserve_fds = globals.preserved(parsed)?;
    if listen > 0 {
        plan.env.push(format!("LISTEN_FDS={listen}"));
    }

    let detach = parsed.is_set("detach");
    let socket = parsed.get("console-socket").map(PathBuf::from);
    if socket.is_some() && !(plan.terminal && detach) {
        bail!("cannot use console socket if runc will not detach or allocate tty");
    }
    if detach && plan.terminal && socket.is_none() {
        bail!("cannot allocate tty if runc will detach without setting console socket");
    }
    let filter = container.load_filter()?;
    let mut foreground = if detach { None } else { Some(Foreground::new(plan.terminal)?) };
    let console = match (&mut foreground, &socket) {
        (Some(foreground), _) => foreground.console(),
        (None, Some(path)) => Some(connect_console(path)?),
        (None, None) => None,
    };
    let place = match parsed.all("cgroup") {
        named if named.is_empty() => Place::Beside(container.cgroup(), container.record.pid),
        named => Place::At(container.cgroup().within(&named)?),
    };
    laps.lap("load");
    let pid = enter(globals, &container, &place, &plan, filter.as_ref(), console, &mut laps)?;
    laps.lap("process");
    let mut tell = || -> anyhow::Result<()> {
        if let Some(path) = parsed.get("pidfd-socket") {
            send_pidfd(Path::new(path), pid, b"setns")?;
        }
        if let Some(path) = parsed.get("pid-file") {
            write_pid_file(Path::new(path), pid)?;
        }
        foreground.as_mut().map_or(Ok(()), Foreground::take_terminal)
    };
    if let Err(error) = tell() {
        // Nobody would know of it.
        end(pid);
        return Err(error);
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.wait(pid);
    laps.lap("container");
    code
}

/// The process asked for: a file, or the container's own with the command line's changes.
fn process(container: &Container, parsed: &Parsed) -> anyhow::Result<Process> {
    let own = || -> anyhow::Result<Process> {
        crate::spec::load(&container.record.config_path())?
            .process
            .context("config.json has no process")
    };
    let mut process = match parsed.get("process") {
        Some(path) => {
            let mut process = crate::spec::load_process(Path::new(path))?;
            if process.capabilities.is_none() {
                process.capabilities = own()?.capabilities;
            }
            process
        }
        None => {
            let mut process = own()?;
            process.args = parsed.words[1..].to_vec();
            if process.args.is_empty() {
                bail!("process args cannot be empty");
            }
            process.terminal = parsed.is_set("tty");
            process.console_size = None;
            process
        }
    };
    if let Some(cwd) = parsed.get("cwd") {
        process.cwd = cwd.to_owned();
    }
    process.env.extend(parsed.all("env"));
    if let Some(user) = parsed.get("user") {
        let (uid, gid) = parse_user(user)?;
        process.user = User { uid, gid: gid.unwrap_or(process.user.gid), ..process.user };
    }
    for gid in parsed.all("additional-gids") {
        process.user.additional_gids.push(parse_id(&gid)?);
    }
    for name in parsed.all("cap") {
        let sets = process.capabilities.get_or_insert_with(Capabilities::default);
        // CVE-2022-29162: never the inheritable set.
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.push(name.clone());
        }
        // Compat: where the container has inheritable ones, it is ambient too.
        if !sets.inheritable.is_empty() {
            sets.ambient.push(name.clone());
        }
    }
    if let Some(profile) = parsed.get("apparmor") {
        process.apparmor_profile = profile.to_owned();
    }
    if let Some(label) = parsed.get("process-label") {
        process.selinux_label = label.to_owned();
    }
    if parsed.is_set("no-new-privs") {
        process.no_new_privileges = true;
    }
    if parsed.is_set("tty") {
        process.terminal = true;
    }
    Ok(process)
}

/// `uid` or `uid:gid`, numbers only (CVE-2026-30892 was a parser that guessed).
fn parse_user(text: &str) -> anyhow::Result<(u32, Option<u32>)> {
    Ok(match text.split_once(':') {
        Some((uid, gid)) => (parse_id(uid)?, Some(parse_id(gid)?)),
        None => (parse_id(text)?, None),
    })
}

fn parse_id(text: &str) -> anyhow::Result<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        bail!("parsing {text:?} as a user or group id: invalid syntax");
    }
    match text.parse::<u32>() {
        // (uid_t)-1 means "unchanged" to the kernel.
        Ok(u32::MAX) | Err(_) => bail!("parsing {text:?} as a user or group id: invalid value"),
        Ok(id) => Ok(id),
    }
}

fn enter(
    globals: &Globals,
    container: &Container,
    place: &Place,
    plan: &ProcessPlan,
    filter: Option<&Program>,
    console: Option<OwnedFd>,
    laps: &mut Laps<'_>,
) -> anyhow::Result<i32> {
    let first = container.record.pid;
    let pidfd = pidfd_open(first).map_err(|_| anyhow!("container not running"))?;
    if !container.is_alive() {
        bail!("container not running");
    }
    let namespaces = differing_namespaces(first)?;
    let oom_score = rootless::OomScore::set(plan.oom_score_adj)?;
    // Nobody in the container may look into us through its procfs before the exec.
    sys::identity::prctl(libc::PR_SET_DUMPABLE, 0).context("prctl PR_SET_DUMPABLE")?;
    let staged = rootless::unprivileged() && namespaces & libc::CLONE_NEWUSER != 0;
    if namespaces & libc::CLONE_NEWPID != 0 && !staged {
        // For the next child only; we stay where we are.
        sys::clone::setns(pidfd.as_fd(), libc::CLONE_NEWPID)
            .map_err(|error| anyhow!("join the pid namespace: {}", errno_text(errno_of(&error))))?;
    }
    let (ours, theirs) = sys::socket::message_pair().context("handshake socket")?;
    let channel = RuntimeEnd(ours);
    let keyring = container.record.new_keyring.then_some(container.record.id.as_str());
    let mut entry = Entry {
        host: Host::of_the_runtime(),
        process: plan,
        seccomp: filter,
        channel: InitEnd(theirs),
        console,
        pidfd,
        namespaces: if staged { namespaces } else { namespaces & !libc::CLONE_NEWPID },
        keyring,
        limits_from_outside: namespaces & libc::CLONE_NEWUSER != 0 && !plan.rlimits.is_empty(),
        debug: globals.log.tells_debug(),
    };
    // One that is to start on other CPUs goes there first.
    let pinned = plan.affinity.as_ref().is_some_and(|(before, _)| !before.is_empty());
    let doors = if pinned { None } else { place.cgroup().doors() };
    let (side, mut inside) = clone_inside(0, doors.as_ref())?;
    let pid = match side {
        Side::Child => {
            // A copy of the runtime's end in here would hide its death from us.
            drop(channel);
            enter_cgroups(doors, &entry.channel);
            if staged {
                init::enter_stage(&mut entry);
            }
            init::enter(entry)
        }
        Side::Parent(pid) => {
            drop((entry, doors, oom_score));
            if staged {
                inside = Inside::Known(inside.told(&channel)?);
                born_of_stage(globals, &channel, pid)?
            } else {
                pid
            }
        }
    };
    laps.lap("clone");
    let admitted = inside
        .told(&channel)
        .and_then(|inside| {
            let place = (!inside).then_some(place);
            admit(globals, place, plan, &container.record, pid)
        })
        .inspect(|()| laps.lap("limits"))
        .and_then(|()| converse(globals, container, plan, &channel, pid));
    if admitted.is_err() {
        end(pid);
    }
    admitted.map(|()| pid)
}

/// For a child of ours that shall not be.
fn end(pid: i32) {
    drop(sys::process::kill(pid, libc::SIGKILL));
    drop(sys::clone::wait(pid, true));
}

/// The cgroup a process is put into.
#[derive(Debug)]
enum Place {
    At(Cgroup),
    /// Where the first process is, should the container's own take none.
    Beside(Cgroup, i32),
}

impl Place {
    fn cgroup(&self) -> &Cgroup {
        let (Self::At(cgroup) | Self::Beside(cgroup, _)) = self;
        cgroup
    }

    fn join(&self, pid: i32) -> Result<(), crate::cgroup::Error> {
        match self {
            Self::At(cgroup) => cgroup.clone().join_or_attach(pid),
            Self::Beside(cgroup, first) => cgroup.clone().join_beside(pid, *first),
        }
    }
}

/// What only the runtime's own rights can do to the process. `place`: where it is not yet.
fn admit(
    globals: &Globals,
    place: Option<&Place>,
    plan: &ProcessPlan,
    record: &Record,
    pid: i32,
) -> anyhow::Result<()> {
    let pin = |mask: &[u64]| {
        if mask.is_empty() {
            return Ok(());
        }
        sys::schedule::set_affinity(pid, mask)
            .map_err(|error| anyhow!("set CPU affinity: {}", errno_text(errno_of(&error))))
    };
    let (before, after) = plan.affinity.as_ref().map_or((&[][..], &[][..]), |(a, b)| (a, b));
    pin(before)?;
    if let [first, ..] = before {
        // Compat: the text that runc's stage logs.
        globals.log.debug(&format!("nsexec[{pid}]: affinity: {first:#x}"));
    }
    // Compat: runc's words.
    if let Some(Err(error)) = place.map(|place| place.join(pid))
        && !record.optional_cgroups
    {
        bail!("error adding pid {pid} to cgroups: {error}");
    }
    if let Some(group) = &record.resctrl {
        group.add(pid).map_err(|error| anyhow!("error adding pid {pid} to Intel RDT: {error}"))?;
    }
    if plan.affinity.is_none() {
        reset_affinity(globals, pid);
    }
    pin(after)?;
    apply_oom_score(plan, pid)?;
    apply_schedule(plan, &record.resources, pid)
}

/// Through the handshake to the exec: the socket closes with it.
fn converse(
    globals: &Globals,
    container: &Container,
    plan: &ProcessPlan,
    channel: &RuntimeEnd,
    pid: i32,
) -> anyhow::Result<()> {
    channel.proceed().context("handshake")?;
    let mut ready = false;
    loop {
        match channel.receive().context("handshake")? {
            Some(FromInit::Ready) => ready = true,
            Some(FromInit::Note(text)) => globals.log.debug(&text),
            Some(FromInit::Shed) => {
                apply_limits(plan, pid, init::LIMITS_FAILED)?;
                channel.proceed().context("handshake")?;
            }
            Some(FromInit::Listener(number)) => {
                let listener = channel.take_listener(pid, number).context("seccomp listener")?;
                hand_over_listener(
                    &Bundle::load(&container.record.bundle, Some(&container.record.config_path()))?,
                    &listener,
                )?;
                channel.proceed().context("handshake")?;
            }
            Some(FromInit::Failed(failure)) => {
                // Compat: runc's exec does without the words of its init.
                let sentence = failure.sentence();
                let sentence = sentence.trim_start_matches("error during container init: ");
                bail!("unable to start container process: {sentence}")
            }
            Some(message) => bail!("unable to start container process: unexpected {message:?}"),
            None if ready => return Ok(()),
            None => bail!("unable to start container process: it ended without a word"),
        }
    }
}

/// `CLONE_NEW*` of the namespaces of `pid` that are not ours.
pub(super) fn differing_namespaces(pid: i32) -> anyhow::Result<libc::c_int> {
    let mut flags = 0;
    for (name, flag) in [
        ("user", libc::CLONE_NEWUSER),
        ("mnt", libc::CLONE_NEWNS),
        ("pid", libc::CLONE_NEWPID),
        ("net", libc::CLONE_NEWNET),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("time", 0x80),
    ] {
        let link = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{name}"));
        match (link("self"), link(&pid.to_string())) {
            (Ok(ours), Ok(theirs)) if ours == theirs => {}
            (Ok(_), Ok(_)) => flags |= flag,
            // Kernels without this kind of namespace.
            (Err(_), _) => {}
            (Ok(_), Err(error)) => {
                bail!("read namespace {name} of the container: {}", errno_text(errno_of(&error)))
            }
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::text;
    use proptest::prelude::*;

    #[test]
    fn a_user_is_one_or_two_numbers() {
        for (text, wanted) in [("1", (1, None)), ("1:2", (1, Some(2))), ("0:0", (0, Some(0)))] {
            assert_eq!(parse_user(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_user() {
        for text in ["", ":", "1:", ":1", "-1", "+1", " 1", "1 ", "root", "1:2:3", "4294967295"] {
            assert!(parse_user(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_user_is_numbers_below_the_last(
            text in text(&["0", "7", ":", "4294967295", "4294967294", "-", "+", " ", "root", "٣"], 4),
        ) {
            let id = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse::<u32>().ok().filter(|id| digits && *id != u32::MAX)
            };
            let parts: Vec<&str> = text.split(':').collect();
            let wanted = match parts.as_slice() {
                [uid] => id(uid).map(|uid| (uid, None)),
                [uid, gid] => id(uid).zip(id(gid)).map(|(uid, gid)| (uid, Some(gid))),
                _ => None,
            };
            prop_assert_eq!(parse_user(&text).ok(), wanted);
        }
    }
}
