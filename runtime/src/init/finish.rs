//! The last steps, the same for a container's first process and for `exec`: descriptors, label,
//! user, capabilities, filter, directory, program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, OFlags, Uid};

use super::handshake::{Context as _, Failure, InitEnd, Step};
use super::landlock;
use super::rootfs::read_file;
use crate::seccomp::Program;
use crate::spec::process::ProcessPlan;
use crate::sys;
use crate::sys::host::{Host, Inside};
use crate::sys::identity::CapabilitySets;
use crate::sys::landlock::Ruleset;
use crate::sys::path::{RootFd, is_char_device, open_proc};

/// The program found, everything else done.
#[derive(Debug)]
pub(super) struct Command {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    pub(super) fn environment(&self) -> Vec<String> {
        self.env.iter().map(|pair| pair.to_string_lossy().into_owned()).collect()
    }

    pub(super) fn exec(&self) -> Failure {
        let error = sys::process::exec(&self.path, &self.args, &self.env);
        Failure::new(Step::Exec, &error, self.path.to_string_lossy())
    }
}

/// `HOME` where the environment has none: from the container's passwd, else `/`.
pub(super) fn home(root: &RootFd, process: &ProcessPlan) -> Option<String> {
    if process.variable("HOME").is_some_and(|home| !home.is_empty()) {
        return None;
    }
    let passwd = read_file(root, "/etc/passwd", 1 << 20).unwrap_or_default();
    Some(home_of(&passwd, process.uid).unwrap_or("/").to_owned())
}

fn home_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let matches = fields.get(2)?.parse() == Ok(uid);
        fields.get(5).filter(|home| matches && !home.is_empty()).copied()
    })
}

/// A label for the next exec: where it is written, on the host's procfs, and what.
#[derive(Debug)]
pub(super) struct Label {
    file: OwnedFd,
    text: String,
    step: Step,
    /// Compat: the sentence of runc that the failure ends.
    what: String,
}

/// What runc's sentences about labels begin with.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    profile: &'static str,
    context: &'static str,
}

pub(super) const OF_INIT: About =
    About { profile: "unable to apply apparmor profile: ", context: "can't set process label: " };
pub(super) const OF_EXEC: About = About { profile: "", context: "" };

/// Opens where the labels are written while the host's procfs is in reach.
pub(super) fn prepare_labels(
    process: &ProcessPlan,
    host: &Host,
    about: About,
) -> Result<Vec<Label>, Failure> {
    let mut labels = Vec::new();
    let (profile, context) = (&process.apparmor_profile, &process.selinux_label);
    if profile.is_empty() && context.is_empty() {
        return Ok(labels);
    }
    let proc = host.proc().step(Step::Label, "open /proc")?;
    let open = |path: &str| open_proc(proc.as_fd(), path, OFlags::WRONLY);
    if !context.is_empty() {
        let what = format!("{}write /proc/thread-self/attr/exec", about.context);
        let step = Step::Context;
        let file = open("self/attr/exec").step(step, &what)?;
        labels.push(Label { file, text: context.clone(), step, what });
    }
    if !profile.is_empty() {
        let what = |file: &str| {
            format!("{}apparmor failed to apply profile: write /proc/{file}", about.profile)
        };
        // Linux before 5.8, or without AppArmor, has only the place that all modules share.
        let (own, shared) = ("self/attr/apparmor/exec", "self/attr/exec");
        let (file, what) = match open(own) {
            Ok(file) => (file, what(own)),
            Err(_) => (open(shared).step(Step::Label, &what(shared))?, what(shared)),
        };
        labels.push(Label { file, text: format!("exec {profile}"), step: Step::Label, what });
    }
    Ok(labels)
}

/// The SELinux label of the keyring to come, through the host's procfs.
pub(super) fn label_keys(process: &ProcessPlan, host: &Host) -> Result<(), Failure> {
    let label = &process.selinux_label;
    if label.is_empty() {
        return Ok(());
    }
    host.write_own("attr/keycreate", label).step(Step::Label, "write /proc/self/attr/keycreate")
}

pub(super) fn apply_labels(labels: Vec<Label>) -> Result<(), Failure> {
    for Label { file, text, step, what } in labels {
        rustix::io::write(&file, text.as_bytes()).map(drop).step(step, &what)?;
    }
    Ok(())
}

/// What a process does to itself that no other can do for it.
pub(super) fn settle(process: &ProcessPlan) -> Result<(), Failure> {
    if let Some(persona) = process.personality {
        sys::identity::set_personality(persona).step(Step::Personality, "personality")?;
    }
    if let Some(policy) = &process.memory_policy {
        sys::schedule::set_memory_policy(policy).step(Step::Personality, "set memory policy")?;
    }
    Ok(())
}

/// Closes all but the standard and the preserved descriptors and the two we still need. They
/// move to the first numbers behind the preserved ones.
pub(super) fn shed_descriptors(
    process: &ProcessPlan,
    channel: InitEnd,
    fifo: Option<OwnedFd>,
) -> Result<(InitEnd, Option<OwnedFd>), Failure> {
    let first = 3 + process.preserve_fds;
    for number in 3..first {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        if !sys::process::is_open(number) {
            return Err(Failure {
                step: Step::Descriptors,
                errno: 0,
                detail: format!("preserved file descriptor {number} is not open"),
            });
        }
        sys::process::keep_on_exec(number).step(Step::Descriptors, "preserve fds")?;
    }
    let moved = sys::process::keep_only(first, [Some(channel.0), fifo])
        .step(Step::Descriptors, "close descriptors")?;
    let [channel, fifo] = moved;
    let channel = channel
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
        .step(Step::Descriptors, "channel")?;
    Ok((InitEnd(channel), fifo))
}

/// Compat: runc's words, whose runtime does it from outside.
pub(crate) const LIMITS_FAILED: &str = "error setting rlimits for ready process";

pub(super) fn limit(process: &ProcessPlan) -> Result<(), Failure> {
    for (resource, soft, hard) in &process.rlimits {
        let what = format!("{LIMITS_FAILED}: error setting rlimit type {resource}");
        sys::identity::set_rlimit(0, *resource, *soft, *hard).step(Step::Limits, &what)?;
    }
    Ok(())
}

/// What is never taken back, in this order: a filter may forbid the calls of the other.
#[derive(Debug)]
pub(super) struct Last<'a> {
    pub(super) landlock: Option<Ruleset>,
    pub(super) seccomp: Option<&'a Program>,
}

impl Last<'_> {
    fn take_effect(&self, channel: &InitEnd) -> Result<(), Failure> {
        landlock::enforce(self.landlock.as_ref())?;
        let Some(program) = self.seccomp else { return Ok(()) };
        match sys::seccomp::install(program).step(Step::Seccomp, "")? {
            Some(listener) => channel.send_listener(listener.as_fd()),
            None => Ok(()),
        }
    }
}

/// User, groups, capabilities, rules and filter, directory; then the program is looked up with the
/// rights it will run with.
pub(super) fn become_process(
    inside: &Inside,
    process: &ProcessPlan,
    last: Last<'_>,
    home: Option<String>,
    channel: &InitEnd,
) -> Result<Command, Failure> {
    // Before the filter, which need not let us look where we are.
    let mut entered = true;
    if let Err(error) = inside.enter_directory(&process.cwd) {
        if error.raw_os_error() != Some(libc::EACCES) {
            return Err(error).step(Step::Cwd, &process.cwd);
        }
        entered = false;
    }
    if entered {
        verify_cwd()?;
    }
    if process.no_new_privileges {
        sys::identity::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
            .step(Step::NoNewPrivileges, "set no_new_privs")?;
    } else {
        // Without no_new_privs both need CAP_SYS_ADMIN, which is about to go.
        last.take_effect(channel)?;
    }
    change_user(process)?;
    if !entered {
        inside.enter_directory(&process.cwd).step(Step::Cwd, &process.cwd)?;
        verify_cwd()?;
    }
    sys::identity::set_umask(process.umask);
    let command = look_up(inside, process, home)?;
    sys::process::reset_signals().step(Step::Exec, "reset signals")?;
    if process.no_new_privileges {
        last.take_effect(channel)?;
    }
    Ok(command)
}

fn change_user(process: &ProcessPlan) -> Result<(), Failure> {
    let sets = process.capabilities.unwrap_or_default();
    let last = last_capability();
    sys::identity::drop_bounding(sets.bounding, last).step(Step::Capabilities, "bounding set")?;
    sys::identity::prctl(libc::PR_SET_KEEPCAPS, 1).step(Step::Capabilities, "keep caps")?;
    own_stdio(process);
    if !process.fixed_groups {
        sys::identity::set_groups(&process.groups).step(Step::User, "setgroups")?;
    }
    sys::identity::set_gid(process.gid).step(Step::User, "setgid")?;
    sys::identity::set_uid(process.uid).step(Step::User, "setuid")?;
    sys::identity::prctl(libc::PR_SET_KEEPCAPS, 0).step(Step::Capabilities, "keep caps")?;
    apply_capabilities(&sets, last)
}

fn apply_capabilities(sets: &CapabilitySets, last: u32) -> Result<(), Failure> {
    sys::identity::set_capabilities(sets).step(Step::Capabilities, "capset")?;
    match sys::identity::clear_ambient() {
        // Before 4.3 there are none.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
        result => result.step(Step::Capabilities, "clear ambient set")?,
    }
    // Compat: what is not inheritable cannot be ambient; runc passes over it.
    let ambient = sets.ambient & sets.permitted & sets.inheritable;
    for capability in 0..=last {
        if ambient & (1 << capability) != 0 {
            sys::identity::raise_ambient(capability).step(Step::Capabilities, "ambient set")?;
        }
    }
    Ok(())
}

/// The highest capability of the kernel, found by asking.
fn last_capability() -> u32 {
    let known = |number: u32| {
        sys::identity::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number)).is_ok()
    };
    // Halving the distance: 0 has always been there, and there is no room for 64.
    let (mut last, mut unknown) = (0, 64);
    while unknown - last > 1 {
        let middle = u32::midpoint(last, unknown);
        if known(middle) { last = middle } else { unknown = middle }
    }
    last
}

/// The user may write to its own standard streams; failures do not matter, as with runc.
fn own_stdio(process: &ProcessPlan) {
    let streams: [BorrowedFd<'_>; 3] =
        [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for stream in streams {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        if stat.st_uid == process.uid || is_char_device(stream, 1, 3).unwrap_or(true) {
            continue;
        }
        rustix::fs::fchown(stream, Some(Uid::from_raw(process.uid)), None::<Gid>).ok();
    }
}

/// The directory must be inside: a leaked descriptor of the host may have named one that is not.
fn verify_cwd() -> Result<(), Failure> {
    let outside = || Failure {
        step: Step::User,
        errno: 0,
        detail: "current working directory is outside of container mount namespace root -- \
                 possible container breakout detected"
            .to_owned(),
    };
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(rustix::io::Errno::NOENT) => Err(outside()),
        Err(error) => Err(error).step(Step::User, "getcwd"),
    }
}

fn look_up(
    inside: &Inside,
    process: &ProcessPlan,
    home: Option<String>,
) -> Result<Command, Failure> {
    let search = process.variable("PATH").unwrap_or_default();
    let path = find_program(inside, &process.args[0], search)?;
    let c_strings = |texts: &[String]| -> io::Result<Vec<CString>> {
        texts.iter().map(|text| sys::c_string(text.as_bytes())).collect()
    };
    let mut env = process.env.clone();
    if let Some(home) = home {
        env.retain(|pair| !pair.starts_with("HOME="));
        env.push(format!("HOME={home}"));
    }
    Ok(Command {
        path: sys::c_string(path.as_bytes()).step(Step::Exec, &path)?,
        args: c_strings(&process.args).step(Step::Exec, &path)?,
        env: c_strings(&env).step(Step::Exec, &path)?,
    })
}

/// Compat: Go's LookPath and its texts; engines derive exit codes 126 and 127 from them.
fn find_program(inside: &Inside, name: &str, search: &str) -> Result<String, Failure> {
    let failed = |detail: String, errno: i32| Failure { step: Step::Lookup, errno, detail };
    if name.contains('/') {
        return match inside.is_program(name) {
            Ok(true) => Ok(name.to_owned()),
            Ok(false) => Err(failed(format!("exec: {name:?}"), libc::EACCES)),
            Err(error) => {
                Err(failed(format!("exec: {name:?}: stat {name}"), sys::errno_of(&error)))
            }
        };
    }
    for directory in search.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{}/{name}", directory.trim_end_matches('/'));
        if inside.is_program(&candidate).is_ok_and(|is_one| is_one) {
            return Ok(candidate);
        }
    }
    Err(failed(format!("exec: {name:?}: executable file not found in $PATH"), 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::lines;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    #[test]
    fn home_comes_from_passwd_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:7:7::/srv/app:/bin/sh\n";
        assert_eq!(home_of(passwd, 7), Some("/srv/app"));
        assert_eq!(home_of(passwd, 8), None);
    }

    #[test]
    fn lookup_speaks_as_go_does() {
        let inside = Inside::of_the_test();
        let text =
            |name: &str| find_program(&inside, name, "/nowhere:/bin").unwrap_err().sentence();
        assert_eq!(text("no-such"), "exec: \"no-such\": executable file not found in $PATH");
        assert_eq!(
            text("/no/such"),
            "exec: \"/no/such\": stat /no/such: no such file or directory"
        );
        assert_eq!(text("/etc"), "exec: \"/etc\": permission denied");
        assert_eq!(find_program(&inside, "sh", "/nowhere:/bin").unwrap(), "/bin/sh");
    }

    proptest! {
        #[test]
        fn a_home_is_that_of_the_first_line_that_has_one(
            users in vec((0_u32..3, select(&["", "/", "/srv/a b", "é"])), 0..=5), uid in 0_u32..4,
            broken in lines(&[":", ":", "x", "1", "-", "\0", "é", "/h", "99999999999"]),
        ) {
            let text: String = users.iter().map(|(uid, home)| format!("u:x:{uid}:7:c:{home}:/bin/sh\n")).collect();
            let wanted = users.iter().find(|user| user.0 == uid && !user.1.is_empty()).map(|user| user.1);
            prop_assert_eq!(home_of(&text, uid), wanted);
            prop_assert!(home_of(&broken, 1).is_none_or(|home| broken.contains(home) && !home.contains(':')));
        }
    }
}
