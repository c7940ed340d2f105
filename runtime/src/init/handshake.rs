//! What the runtime and the process it makes tell each other, over a pair of SEQPACKET sockets.
//!
//! ```text
//!   runtime                                  init
//!     |                                        | enters its cgroups
//!     |<------------------------ Admitted -----|   (or its stage, in its stead)
//!     | id maps, limits                        | namespaces and root, if it needs no maps; waits
//!     |------------------------- Proceed ----->|
//!     | state.json                             | mounts, devices
//!     |<------------------------ Wanted -------|   (an id-mapped source that a mount has brought, in a
//!     |------------------------- its tree ---->|   user namespace; both wait for it)
//!     |<------------------------ Mounted ------|   (a container's first process only)
//!     | prestart and createRuntime hooks       | waits (where there are any, a scheduler's wish, devices)
//!     |------------------------- Proceed ----->|
//!     |                                        | createContainer hooks, root
//!     |<------------------------ Shed ---------|   (resource limits in a user namespace)
//!     | resource limits                        | waits
//!     |------------------------- Proceed ----->|
//!     |                                        | user, seccomp
//!     |<------------------------ Listener -----|   (a profile that notifies)
//!     | takes the fd, hands it to the agent    | waits
//!     |------------------------- Proceed ----->|
//!     |<------------------------ Ready --------|
//!     | the fifo's name, pid file              | waits on the exec fifo, then execve
//! ```
//! `Failed` may come instead of anything from init. A closed socket is the other side's death.
//!
//! Init speaks by read(2) and write(2) alone: once its filter is in place, any other call may be one
//! that waits for the agent, who waits for the listener.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use crate::sys::socket;
use crate::sys::{errno_of, errno_text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToInit {
    Proceed = 1,
    /// The runtime has no right to take the listener.
    SendListener,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromInit {
    /// The stage between runtime and init tells init's pid.
    Born(i32),
    /// Whether it has entered its cgroups by itself.
    Admitted(bool),
    /// Of the mount with this number, which is for the runtime's rights to open.
    Wanted(u32),
    Mounted,
    /// The number that the seccomp listener has in there.
    Listener(i32),
    /// It holds no more files than it must: now its limits can be set, before its user changes.
    Shed,
    Ready,
    /// For the log, where the caller wants to know.
    Note(String),
    Failed(Failure),
}

/// What init was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Handshake,
    Namespace,
    Session,
    Keyring,
    Network,
    Rootfs,
    Mount,
    Device,
    Hook,
    Pivot,
    Console,
    ReadonlyPath,
    MaskedPath,
    Sysctl,
    Hostname,
    Label,
    /// The SELinux label of the program to come.
    Context,
    NoNewPrivileges,
    Landlock,
    Seccomp,
    Capabilities,
    User,
    Cwd,
    Descriptors,
    Lookup,
    Personality,
    Limits,
    Exec,
}

const STEPS: [Step; 28] = [
    Step::Handshake,
    Step::Namespace,
    Step::Session,
    Step::Keyring,
    Step::Network,
    Step::Rootfs,
    Step::Mount,
    Step::Device,
    Step::Hook,
    Step::Pivot,
    Step::Console,
    Step::ReadonlyPath,
    Step::MaskedPath,
    Step::Sysctl,
    Step::Hostname,
    Step::Label,
    Step::Context,
    Step::NoNewPrivileges,
    Step::Landlock,
    Step::Seccomp,
    Step::Capabilities,
    Step::User,
    Step::Cwd,
    Step::Descriptors,
    Step::Lookup,
    Step::Personality,
    Step::Limits,
    Step::Exec,
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    /// 0 where the detail says it all.
    pub(crate) errno: i32,
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(step: Step, error: &io::Error, detail: impl Into<String>) -> Self {
        Self { step, errno: errno_of(error), detail: detail.into() }
    }

    /// The parent's sentence, worded as runc's.
    pub(crate) fn sentence(&self) -> String {
        let Self { step, errno, detail } = self;
        let cause = if *errno == 0 { String::new() } else { format!(": {}", errno_text(*errno)) };
        let what = match step {
            // Compat: clients match this text; it stands without the prefix of the others.
            Step::Lookup | Step::Context => return format!("{detail}{cause}"),
            Step::Exec => return format!("exec {detail}{cause}"),
            Step::Mount => format!("error mounting {detail}"),
            Step::Device => format!("error creating device nodes: {detail}"),
            Step::MaskedPath => format!("can't mask path {detail}"),
            Step::ReadonlyPath => format!("can't make {detail:?} read-only"),
            Step::Cwd => format!("chdir to cwd ({detail:?}) set in config.json failed"),
            Step::Sysctl => format!("write sysctl key {detail}"),
            Step::Hostname => format!("set {detail}"),
            Step::Landlock => format!("landlock: {detail}"),
            Step::Seccomp => "error installing seccomp filter".to_owned(),
            Step::Capabilities => format!("apply caps: {detail}"),
            Step::User => detail.clone(),
            Step::Rootfs => format!("error preparing rootfs: {detail}"),
            Step::Pivot => format!("error jailing process inside rootfs: {detail}"),
            Step::Namespace => format!("namespaces: {detail}"),
            Step::Handshake
            | Step::Session
            | Step::Keyring
            | Step::Label
            | Step::Network
            | Step::Hook
            | Step::Console
            | Step::NoNewPrivileges
            | Step::Descriptors
            | Step::Personality
            | Step::Limits => detail.clone(),
        };
        format!("error during container init: {what}{cause}")
    }
}

/// Shortens `map_err` at the many places that fail.
pub(crate) trait Context<T> {
    fn step(self, step: Step, detail: &str) -> Result<T, Failure>;
}

impl<T> Context<T> for io::Result<T> {
    fn step(self, step: Step, detail: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, &error, detail))
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn step(self, step: Step, detail: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, &error.into(), detail))
    }
}

impl FromInit {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Born(pid) => [vec![b'B'], pid.to_ne_bytes().to_vec()].concat(),
            Self::Admitted(inside) => vec![b'A', u8::from(*inside)],
            Self::Wanted(index) => [vec![b'W'], index.to_ne_bytes().to_vec()].concat(),
            Self::Mounted => vec![b'M'],
            Self::Listener(number) => [vec![b'L'], number.to_ne_bytes().to_vec()].concat(),
            Self::Shed => vec![b'S'],
            Self::Ready => vec![b'R'],
            Self::Note(text) => [b"N", text.as_bytes()].concat(),
            Self::Failed(failure) => {
                let mut bytes = vec![b'F', failure.step as u8];
                bytes.extend(failure.errno.to_ne_bytes());
                bytes.extend(failure.detail.bytes().take(8 * 1024));
                bytes
            }
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        Some(match tag {
            b'B' => Self::Born(i32::from_ne_bytes(rest.try_into().ok()?)),
            b'A' => Self::Admitted(*rest.first()? != 0),
            b'W' => Self::Wanted(u32::from_ne_bytes(rest.try_into().ok()?)),
            b'M' => Self::Mounted,
            b'L' => Self::Listener(i32::from_ne_bytes(rest.try_into().ok()?)),
            b'S' => Self::Shed,
            b'R' => Self::Ready,
            b'N' => Self::Note(String::from_utf8_lossy(rest).into_owned()),
            b'F' => {
                let step = *STEPS.get(usize::from(*rest.first()?))?;
                let errno = i32::from_ne_bytes(rest.get(1..5)?.try_into().ok()?);
                let detail = String::from_utf8_lossy(&rest[5..]).into_owned();
                Self::Failed(Failure { step, errno, detail })
            }
            _ => return None,
        })
    }
}

/// The runtime's end.
#[derive(Debug)]
pub(crate) struct RuntimeEnd(pub(crate) OwnedFd);

impl RuntimeEnd {
    pub(crate) fn proceed(&self) -> io::Result<()> {
        self.send(ToInit::Proceed)
    }

    fn send(&self, message: ToInit) -> io::Result<()> {
        socket::send(self.0.as_fd(), &[message as u8])
    }

    /// `None` when init is gone without a word.
    pub(crate) fn receive(&self) -> io::Result<Option<FromInit>> {
        Ok(FromInit::from_bytes(&socket::receive(self.0.as_fd())?))
    }

    pub(crate) fn send_tree(&self, tree: BorrowedFd<'_>) -> io::Result<()> {
        socket::send_fds(self.0.as_fd(), b"W", &[tree])
    }

    pub(crate) fn take_listener(&self, pid: i32, number: i32) -> io::Result<OwnedFd> {
        match crate::sys::clone::take_fd(pid, number) {
            // Without CAP_SYS_PTRACE.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                self.send(ToInit::SendListener)?;
                socket::receive_fd(self.0.as_fd())
            }
            taken => taken,
        }
    }
}

/// Init's end.
#[derive(Debug)]
pub(crate) struct InitEnd(pub(crate) OwnedFd);

impl InitEnd {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn send(&self, message: &FromInit) -> Result<(), Failure> {
        // A signal for the runtime's death would not matter: there is nobody left to tell.
        rustix::io::write(&self.0, &message.to_bytes()).map(drop).step(Step::Handshake, "send")
    }

    pub(crate) fn wait(&self) -> Result<(), Failure> {
        match self.receive()? {
            Some(message) if message == ToInit::Proceed as u8 => Ok(()),
            _ => Err(Failure {
                step: Step::Handshake,
                errno: 0,
                detail: "the runtime is gone".into(),
            }),
        }
    }

    fn receive(&self) -> Result<Option<u8>, Failure> {
        let mut message = [0];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut message)) {
            Ok(length) => Ok((length == 1).then_some(message[0])),
            // A dead peer with unread data resets the pair.
            Err(rustix::io::Errno::CONNRESET) => Ok(None),
            Err(error) => Err(error).step(Step::Handshake, "receive"),
        }
    }

    /// The source of a mount as the runtime opens it in our mount namespace. Long before the filter.
    pub(crate) fn want(&self, mount: usize) -> io::Result<OwnedFd> {
        let index = u32::try_from(mount).map_err(io::Error::other)?;
        rustix::io::write(&self.0, &FromInit::Wanted(index).to_bytes())?;
        socket::receive_fd(self.0.as_fd())
    }

    /// Until the runtime has it and has handed it on.
    pub(crate) fn send_listener(&self, listener: BorrowedFd<'_>) -> Result<(), Failure> {
        self.send(&FromInit::Listener(listener.as_raw_fd()))?;
        match self.receive()? {
            Some(message) if message == ToInit::SendListener as u8 => {
                socket::send_fds(self.0.as_fd(), b"L", &[listener])
                    .step(Step::Seccomp, "send listener")?;
                self.wait()
            }
            Some(message) if message == ToInit::Proceed as u8 => Ok(()),
            _ => self.wait(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::text;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    #[test]
    fn every_step_survives_the_way() {
        for (number, step) in STEPS.into_iter().enumerate() {
            assert_eq!(usize::from(step as u8), number);
            let failure = Failure { step, errno: 13, detail: "\"a\"".into() };
            let message = FromInit::Failed(failure);
            assert_eq!(FromInit::from_bytes(&message.to_bytes()), Some(message));
        }
        assert_eq!(FromInit::from_bytes(b""), None);
        assert_eq!(FromInit::from_bytes(b"F\xff"), None);
    }

    #[test]
    fn a_missing_program_is_told_without_prefix() {
        let failure = Failure {
            step: Step::Lookup,
            errno: 0,
            detail: "exec: \"x\": executable file not found in $PATH".into(),
        };
        assert_eq!(failure.sentence(), "exec: \"x\": executable file not found in $PATH");
    }

    #[test]
    fn other_failures_name_step_and_errno() {
        let failure = Failure { step: Step::Sysctl, errno: libc::EPERM, detail: "net.x".into() };
        assert_eq!(
            failure.sentence(),
            "error during container init: write sysctl key net.x: operation not permitted"
        );
    }

    prop_compose! {
        fn failure()(
            step in select(&STEPS), errno in select(&[0, 1, 13, -1, i32::MAX]),
            detail in text(&["a", "é", "\n", "\0", "\"", "long "], 30),
        ) -> Failure {
            Failure { step, errno, detail }
        }
    }

    proptest! {
        #[test]
        fn a_message_arrives_as_it_was_sent(
            failure in failure(), pid in select(&[1, 0, -1, i32::MAX]), admitted: bool,
        ) {
            let note = FromInit::Note(failure.detail.clone());
            for message in [FromInit::Born(pid), FromInit::Admitted(admitted), note, FromInit::Failed(failure)] {
                let arrived = FromInit::from_bytes(&message.to_bytes());
                prop_assert_eq!(arrived.as_ref(), Some(&message));
            }
        }

        #[test]
        fn any_bytes_are_a_message_or_none(
            kind in select(b"BAMLSRNFX".as_slice()), rest in vec(any::<u8>(), 0..=20),
        ) {
            if let Some(message) = FromInit::from_bytes(&[&[kind], rest.as_slice()].concat()) {
                let again = FromInit::from_bytes(&message.to_bytes());
                prop_assert_eq!(again, Some(message));
            }
        }
    }
}
