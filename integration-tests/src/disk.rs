//! File systems of a test's own for the data root: small ones to fill, and disks whose power is cut.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::output::Output;
use crate::parts;
use crate::sandbox::until;
use crate::stack::Stack;

/// What a data root lies on that is not simply a directory of the stack.
#[derive(Debug, Clone)]
pub(crate) enum Disk {
    /// Bytes of memory.
    Memory(u64),
    /// A file with a file system, and how it is mounted.
    Image(PathBuf, String),
}

impl Disk {
    /// Where an image is mounted: the same for every stack, as what is on it names its place.
    pub(crate) const PLACE: &str = "/run/d";
}

/// Makes a file of this size with an empty ext4.
///
/// # Panics
/// When mke2fs is missing or refuses.
pub fn make_ext4(file: &Path, bytes: u64, options: &[&str]) {
    fs::File::create_new(file).and_then(|file| file.set_len(bytes)).expect("a file for a disk");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut make = std::process::Command::new("mke2fs");
    make.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    make.args(["-q", "-F", "-t", "ext4", "-m", "0"]).args(options).arg(file);
    Output::of(&mut make).ok();
}

impl Stack {
    pub(crate) fn mount_disk(&self, disk: &Disk) {
        let (busybox, place) = (parts::busybox().display().to_string(), self.data_root());
        fs::create_dir_all(self.sandbox().path(&place)).expect("a place for the disk");
        let (kind, options, source) = match disk {
            Disk::Memory(bytes) => ("tmpfs", format!("size={bytes}"), "disk".to_owned()),
            Disk::Image(file, options) => {
                ("ext4", format!("loop,{options}"), file.display().to_string())
            }
        };
        let place = place.display().to_string();
        self.inside(&[&busybox, "mount", "-t", kind, "-o", &options, &source, &place]).ok();
    }

    /// The power fails. What the disk's file has by now is copied; what the file system had not yet
    /// written to it is lost. Nothing of this stack answers any more.
    ///
    /// # Panics
    /// When its data root is on no such disk.
    pub fn cut_power(&self, copy: &Path) {
        let Some(Disk::Image(file, _)) = &self.parts.disk else { panic!("no disk to cut off") };
        // While the file is read nobody may write, or the copy would be a state that never was. A
        // thread that stands still has no write or sync under way either.
        until("nothing moves", || {
            let moving =
                self.sandbox().processes().into_iter().filter(|process| moves(process.pid));
            let stopped = moving.map(|process| stop(process.pid));
            stopped.count() == 0
        });
        // Through the page cache that the loop device writes to, and without a sync.
        fs::copy(file, copy).expect("a copy of the disk");
        self.kill_engine();
    }
}

fn stop(pid: i32) {
    let pid = Pid::from_raw(pid).expect("a pid");
    // It may have ended meanwhile.
    let _ = kill_process(pid, Signal::STOP);
}

fn moves(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.map(|thread| thread.path()).any(|thread| {
        let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
        match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
            None | Some('T' | 't' | 'Z' | 'X') => false,
            Some('D') => !waits_for_a_vfork(&thread),
            Some(_) => true,
        }
    })
}

/// Until its child has executed something nothing stops it, and a child that stands still never will.
fn waits_for_a_vfork(thread: &Path) -> bool {
    let call = fs::read_to_string(thread.join("syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    #[cfg(target_arch = "x86_64")]
    let vfork = number == Some(libc::SYS_vfork);
    #[cfg(not(target_arch = "x86_64"))]
    let vfork = false;
    vfork || number == Some(libc::SYS_clone) || number == Some(libc::SYS_clone3)
}
