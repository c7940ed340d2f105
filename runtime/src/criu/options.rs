//! The options of a dump and a restore by their numbers, and those that both share.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::wire::Message;

pub(crate) const IMAGES: u32 = 1;
pub(crate) const PID: u32 = 2;
pub(crate) const LEAVE_RUNNING: u32 = 3;
pub(crate) const EXTERNAL_SOCKETS: u32 = 4;
pub(crate) const TCP_ESTABLISHED: u32 = 5;
pub(crate) const EVASIVE_DEVICES: u32 = 6;
pub(crate) const SHELL_JOB: u32 = 7;
pub(crate) const FILE_LOCKS: u32 = 8;
const LOG_LEVEL: u32 = 9;
pub(crate) const LOG_FILE: u32 = 10;
pub(crate) const PAGE_SERVER: u32 = 11;
const NOTIFY: u32 = 12;
pub(crate) const ROOT: u32 = 13;
pub(crate) const PARENT: u32 = 14;
pub(crate) const TRACK_MEMORY: u32 = 15;
pub(crate) const AUTO_DEDUP: u32 = 16;
pub(crate) const WORK: u32 = 17;
pub(crate) const LINK_REMAP: u32 = 18;
const EXTERNAL_MOUNT: u32 = 23;
const MANAGE_CGROUPS: u32 = 24;
const CGROUP_ROOT: u32 = 25;
pub(crate) const SIBLING: u32 = 26;
const INHERITED: u32 = 27;
const CGROUPS_MODE: u32 = 34;
pub(crate) const EXTERNAL: u32 = 37;
pub(crate) const EMPTY_NAMESPACES: u32 = 38;
const JOINED: u32 = 39;
pub(crate) const FREEZER: u32 = 44;
pub(crate) const SKIP_IN_FLIGHT: u32 = 46;
pub(crate) const LAZY: u32 = 48;
pub(crate) const STATUS: u32 = 49;
const ORPHAN_TERMINAL: u32 = 50;
pub(crate) const CONFIGURATION: u32 = 51;
pub(crate) const PROFILE: u32 = 53;
pub(crate) const MOUNT_CONTEXT: u32 = 63;

/// How cgroups are kept, by the words of `--manage-cgroups-mode`; "" is criu's own choice.
pub(crate) fn cgroups_mode(word: &str) -> Option<u64> {
    Some(match word {
        "" => 6,
        "soft" => 3,
        "full" => 4,
        "strict" => 5,
        "ignore" => 0,
        _ => return None,
    })
}

/// What every request says.
pub(crate) fn common(cgroups_mode: u64) -> Message {
    let mut options = Message::default();
    options
        .number(LOG_LEVEL, 4)
        .flag(NOTIFY, true)
        // Older than the mode that follows.
        .flag(MANAGE_CGROUPS, true)
        .number(CGROUPS_MODE, cgroups_mode)
        .flag(ORPHAN_TERMINAL, true);
    options
}

impl Message {
    /// A directory of ours, which criu opens by our number.
    pub(crate) fn directory(&mut self, field: u32, fd: BorrowedFd<'_>) -> &mut Self {
        self.number(field, u64::from(fd.as_raw_fd().unsigned_abs()))
    }

    pub(crate) fn external_mount(&mut self, key: &str, value: &str) -> &mut Self {
        let mut pair = Self::default();
        pair.text(1, key).text(2, value);
        self.message(EXTERNAL_MOUNT, &pair)
    }

    pub(crate) fn cgroup_root(&mut self, controller: &str, path: &str) -> &mut Self {
        let mut pair = Self::default();
        pair.text(1, controller).text(2, path);
        self.message(CGROUP_ROOT, &pair)
    }

    /// A descriptor of criu's own stands for what the image calls `key`.
    pub(crate) fn inherited(&mut self, key: &str, number: u64) -> &mut Self {
        let mut pair = Self::default();
        pair.text(1, key).number(2, number);
        self.message(INHERITED, &pair)
    }

    pub(crate) fn joined(&mut self, kind: &str, path: &str) -> &mut Self {
        let mut pair = Self::default();
        pair.text(1, kind).text(2, path);
        self.message(JOINED, &pair)
    }

    pub(crate) fn page_server(&mut self, address: &str, port: u16) -> &mut Self {
        let mut pair = Self::default();
        pair.text(1, address).number(2, u64::from(port));
        self.message(PAGE_SERVER, &pair)
    }
}
