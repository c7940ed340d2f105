//! Mount options by name, as runc reads them; `runc features` lists the same names.

use crate::sys::mount as attr;

/// What the options of one mount come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// `MS_*` without propagation.
    pub(crate) flags: u64,
    /// `MS_*` that an option asked to be off.
    pub(crate) cleared: u64,
    /// In the order given.
    pub(crate) propagation: Vec<u64>,
    /// `MOUNT_ATTR_*` for the mount and all below it.
    pub(crate) recursive_set: u64,
    pub(crate) recursive_clear: u64,
    /// What the filesystem itself reads.
    pub(crate) data: String,
    pub(crate) copy_up: bool,
    pub(crate) idmap: bool,
    pub(crate) recursive_idmap: bool,
}

impl MountOptions {
    pub(crate) fn parse(options: &[String]) -> Self {
        let mut parsed = Self::default();
        let mut data = Vec::new();
        for option in options {
            match option.as_str() {
                "tmpcopyup" => parsed.copy_up = true,
                "idmap" => parsed.idmap = true,
                "ridmap" => (parsed.idmap, parsed.recursive_idmap) = (true, true),
                name => {
                    if let Some((_, clear, flag)) = FLAGS.iter().find(|flag| flag.0 == name) {
                        if *clear {
                            parsed.flags &= !flag;
                            parsed.cleared |= flag;
                        } else {
                            parsed.flags |= flag;
                            parsed.cleared &= !flag;
                        }
                    } else if let Some((_, flag)) = PROPAGATION.iter().find(|flag| flag.0 == name) {
                        parsed.propagation.push(*flag);
                    } else if let Some((_, clear, flag)) =
                        RECURSIVE.iter().find(|flag| flag.0 == name)
                    {
                        if *clear {
                            parsed.recursive_set &= !flag;
                            parsed.recursive_clear |= flag;
                        } else {
                            parsed.recursive_set |= flag;
                            parsed.recursive_clear &= !flag;
                        }
                    } else {
                        data.push(name);
                    }
                }
            }
        }
        parsed.data = data.join(",");
        parsed
    }

    pub(crate) fn is_bind(&self) -> bool {
        self.flags & libc::MS_BIND != 0
    }

    pub(crate) fn is_recursive(&self) -> bool {
        self.flags & libc::MS_REC != 0
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.flags & libc::MS_RDONLY != 0
    }

    /// The attributes of a bind mount: `None` when no option asks for a change. Like runc's
    /// remount, what is not named is off.
    pub(crate) fn bind_attributes(&self) -> Option<BindAttributes> {
        let named = (self.flags | self.cleared) & !(libc::MS_BIND | libc::MS_REC);
        if named == 0 {
            return None;
        }
        let times = self.access_times();
        let set = to_attributes(self.flags & !ACCESS_TIMES) | times.unwrap_or(0);
        let mut access = attr::ATTR_RDONLY
            | attr::ATTR_NOSUID
            | attr::ATTR_NODEV
            | attr::ATTR_NOEXEC
            | attr::ATTR_NOSYMFOLLOW;
        if times.is_some() {
            access |= attr::ATTR_ATIME_MASK | attr::ATTR_NODIRATIME;
        }
        let forced = to_attributes(self.cleared & !ACCESS_TIMES);
        Some(BindAttributes { set, clear: access & !set, forced })
    }

    /// What becomes of the access times, where an option names one of them to be on. Compat: to turn
    /// one off by name changes nothing, as with mount(8).
    pub(crate) fn access_times(&self) -> Option<u64> {
        let named = self.flags & ACCESS_TIMES;
        if named == 0 {
            return None;
        }
        let kind = if named & libc::MS_STRICTATIME != 0 {
            attr::ATTR_STRICTATIME
        } else if named & libc::MS_NOATIME != 0 {
            attr::ATTR_NOATIME
        } else {
            0
        };
        Some(kind | to_attributes(named & libc::MS_NODIRATIME))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BindAttributes {
    pub(crate) set: u64,
    /// Everything not asked for.
    pub(crate) clear: u64,
    /// What the options asked to be off by name.
    pub(crate) forced: u64,
}

const ACCESS_TIMES: u64 =
    libc::MS_NOATIME | libc::MS_NODIRATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

fn to_attributes(flags: u64) -> u64 {
    [
        (libc::MS_RDONLY, attr::ATTR_RDONLY),
        (libc::MS_NOSUID, attr::ATTR_NOSUID),
        (libc::MS_NODEV, attr::ATTR_NODEV),
        (libc::MS_NOEXEC, attr::ATTR_NOEXEC),
        (libc::MS_NOATIME, attr::ATTR_NOATIME),
        (libc::MS_STRICTATIME, attr::ATTR_STRICTATIME),
        (libc::MS_NODIRATIME, attr::ATTR_NODIRATIME),
        (MS_NOSYMFOLLOW, attr::ATTR_NOSYMFOLLOW),
    ]
    .iter()
    .filter(|(flag, _)| flags & flag != 0)
    .fold(0, |set, (_, attribute)| set | attribute)
}

/// All names, sorted, for `features`.
pub(crate) fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = FLAGS.iter().map(|flag| flag.0).collect();
    names.extend(PROPAGATION.iter().map(|flag| flag.0));
    names.extend(RECURSIVE.iter().map(|flag| flag.0));
    names.extend(["tmpcopyup", "idmap", "ridmap"]);
    names.sort_unstable();
    names
}

const MS_NOSYMFOLLOW: u64 = 256;

/// (name, clears, flag)
const FLAGS: &[(&str, bool, u64)] = &[
    ("acl", false, libc::MS_POSIXACL),
    ("async", true, libc::MS_SYNCHRONOUS),
    ("atime", true, libc::MS_NOATIME),
    ("bind", false, libc::MS_BIND),
    ("defaults", false, 0),
    ("dev", true, libc::MS_NODEV),
    ("diratime", true, libc::MS_NODIRATIME),
    ("dirsync", false, libc::MS_DIRSYNC),
    ("exec", true, libc::MS_NOEXEC),
    ("iversion", false, libc::MS_I_VERSION),
    ("lazytime", false, libc::MS_LAZYTIME),
    ("loud", true, libc::MS_SILENT),
    ("mand", false, libc::MS_MANDLOCK),
    ("noacl", true, libc::MS_POSIXACL),
    ("noatime", false, libc::MS_NOATIME),
    ("nodev", false, libc::MS_NODEV),
    ("nodiratime", false, libc::MS_NODIRATIME),
    ("noexec", false, libc::MS_NOEXEC),
    ("noiversion", true, libc::MS_I_VERSION),
    ("nolazytime", true, libc::MS_LAZYTIME),
    ("nomand", true, libc::MS_MANDLOCK),
    ("norelatime", true, libc::MS_RELATIME),
    ("nostrictatime", true, libc::MS_STRICTATIME),
    ("nosuid", false, libc::MS_NOSUID),
    ("nosymfollow", false, MS_NOSYMFOLLOW),
    ("rbind", false, libc::MS_BIND | libc::MS_REC),
    ("relatime", false, libc::MS_RELATIME),
    ("remount", false, libc::MS_REMOUNT),
    ("ro", false, libc::MS_RDONLY),
    ("rw", true, libc::MS_RDONLY),
    ("silent", false, libc::MS_SILENT),
    ("strictatime", false, libc::MS_STRICTATIME),
    ("suid", true, libc::MS_NOSUID),
    ("symfollow", true, MS_NOSYMFOLLOW),
    ("sync", false, libc::MS_SYNCHRONOUS),
];

const PROPAGATION: &[(&str, u64)] = &[
    ("private", libc::MS_PRIVATE),
    ("rprivate", libc::MS_PRIVATE | libc::MS_REC),
    ("rshared", libc::MS_SHARED | libc::MS_REC),
    ("rslave", libc::MS_SLAVE | libc::MS_REC),
    ("runbindable", libc::MS_UNBINDABLE | libc::MS_REC),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// (name, clears, attribute)
const RECURSIVE: &[(&str, bool, u64)] = &[
    ("ratime", true, attr::ATTR_NOATIME),
    ("rdev", true, attr::ATTR_NODEV),
    ("rdiratime", true, attr::ATTR_NODIRATIME),
    ("rexec", true, attr::ATTR_NOEXEC),
    ("rnoatime", false, attr::ATTR_NOATIME),
    ("rnodev", false, attr::ATTR_NODEV),
    ("rnodiratime", false, attr::ATTR_NODIRATIME),
    ("rnoexec", false, attr::ATTR_NOEXEC),
    ("rnostrictatime", true, attr::ATTR_STRICTATIME),
    // Relative is what remains when no other access time is asked for.
    ("rnorelatime", true, attr::ATTR_NOATIME | attr::ATTR_STRICTATIME),
    ("rnosuid", false, attr::ATTR_NOSUID),
    ("rnosymfollow", false, attr::ATTR_NOSYMFOLLOW),
    ("rrelatime", true, attr::ATTR_NOATIME | attr::ATTR_STRICTATIME),
    ("rro", false, attr::ATTR_RDONLY),
    ("rrw", true, attr::ATTR_RDONLY),
    ("rstrictatime", false, attr::ATTR_STRICTATIME),
    ("rsuid", true, attr::ATTR_NOSUID),
    ("rsymfollow", true, attr::ATTR_NOSYMFOLLOW),
];

/// `rootfsPropagation` by name.
pub(crate) fn propagation(name: &str) -> Option<u64> {
    PROPAGATION.iter().find(|flag| flag.0 == name).map(|flag| flag.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> MountOptions {
        MountOptions::parse(&options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_propagation_and_data_are_told_apart() {
        let options = parse(&["nosuid", "rprivate", "size=64k", "mode=755", "rro"]);
        assert_eq!(options.flags, libc::MS_NOSUID);
        assert_eq!(options.propagation, [libc::MS_PRIVATE | libc::MS_REC]);
        assert_eq!(options.data, "size=64k,mode=755");
        assert_eq!(options.recursive_set, attr::ATTR_RDONLY);
    }

    #[test]
    fn the_last_of_two_contradicting_options_wins() {
        assert!(!parse(&["ro", "rw"]).is_read_only());
        assert!(parse(&["rw", "ro"]).is_read_only());
    }

    #[test]
    fn of_the_access_times_the_strictest_named_holds() {
        for (named, wanted) in [
            (&["bind", "atime", "norelatime"][..], None),
            (&["relatime"], Some(0)),
            (&["noatime", "relatime"], Some(attr::ATTR_NOATIME)),
            (&["strictatime", "noatime"], Some(attr::ATTR_STRICTATIME)),
            (&["nodiratime"], Some(attr::ATTR_NODIRATIME)),
        ] {
            assert_eq!(parse(named).access_times(), wanted, "{named:?}");
        }
    }

    #[test]
    fn a_plain_bind_keeps_the_flags_of_its_source() {
        assert_eq!(parse(&["rbind", "rprivate"]).bind_attributes(), None);
        let read_only = parse(&["bind", "ro"]).bind_attributes().unwrap();
        assert_eq!(read_only.set, attr::ATTR_RDONLY);
        assert_eq!(read_only.clear & attr::ATTR_NOSUID, attr::ATTR_NOSUID);
    }
}
