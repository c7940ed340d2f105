//! `/proc/<pid>/mountinfo`, see proc_pid_mountinfo(5). Of bytes: anybody may have mounted something
//! at a place whose name is no text.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// What of the filesystem is shown.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
    /// Of the filesystem, not of the mount.
    pub(crate) options: String,
}

/// In the kernel's order; what is no such line is left out.
pub(crate) fn parse(text: &[u8]) -> impl Iterator<Item = Mounted> + '_ {
    text.split(|byte| *byte == b'\n').filter_map(line)
}

fn line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    // Optional ones lie between.
    fields.find(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let kind = text(fields.next()?);
    Some(Mounted {
        root: unescape(root),
        point: unescape(point),
        kind,
        options: text(fields.nth(1)?),
    })
}

/// Blanks and the like are written as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let byte;
        (byte, rest) = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            _ => (*first, tail),
        };
        bytes.push(byte);
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::{lines, torn};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    /// As the kernel writes a path (`seq_path`).
    fn escaped(path: &[u8]) -> Vec<u8> {
        path.iter().fold(Vec::new(), |mut text, byte| {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => text.extend(format!("\\{byte:03o}").bytes()),
                _ => text.push(*byte),
            }
            text
        })
    }

    #[test]
    fn only_octal_digits_are_an_escape() {
        for (field, path) in
            [("a\\040b", "a b"), ("\\+40", "\\+40"), ("\\777", "\\777"), ("\\04", "\\04")]
        {
            assert_eq!(unescape(field.as_bytes()), Path::new(path), "{field}");
        }
    }

    #[test]
    fn a_mount_whose_name_is_no_text_hides_no_other() {
        let text =
            b"1 0 0:1 / /a\xff rw - tmpfs tmpfs rw\n2 0 0:2 /r /b rw shared:1 - proc proc ro,x\n";
        let all: Vec<Mounted> = parse(text).collect();
        assert_eq!(all[0].point.as_os_str().as_bytes(), b"/a\xff");
        let second = &all[1];
        assert_eq!((second.kind.as_str(), second.options.as_str()), ("proc", "ro,x"));
        assert_eq!(
            (second.root.as_path(), second.point.as_path()),
            (Path::new("/r"), Path::new("/b"))
        );
    }

    fn path() -> impl Strategy<Value = PathBuf> {
        let name = vec(select(b"a \t\n\\#-/\xc3\xa9\xff047".as_slice()), 0..=6);
        name.prop_map(|name| OsString::from_vec([b"/".as_slice(), &name].concat()).into())
    }

    prop_compose! {
        /// A mount, and the line in which the kernel tells of it.
        fn line()(
            root in path(), point in path(), kind in select(&["cgroup", "proc", "fuse.x"]),
            options in select(&["rw", "rw,memory"]), source in select(&["", "none"]),
            shared in select(&["", " shared:9", " shared:9 master:1", " unbindable"]),
        ) -> (Mounted, Vec<u8>) {
            let mut text = b"7 1 0:9 ".to_vec();
            text.extend(escaped(root.as_os_str().as_bytes()));
            text.push(b' ');
            text.extend(escaped(point.as_os_str().as_bytes()));
            text.extend(format!(" rw,nosuid{shared} - {kind} {source} {options}\n").bytes());
            (Mounted { root, point, kind: kind.into(), options: options.into() }, text)
        }
    }

    proptest! {
        #[test]
        fn what_the_kernel_writes_is_what_is_mounted(all in vec(line(), 0..=4)) {
            let (wanted, lines): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            prop_assert_eq!(parse(&lines.concat()).collect::<Vec<_>>(), wanted);
        }

        #[test]
        fn broken_lines_are_left_out(
            text in torn(lines(&["1", " ", " ", " ", "/", "\\0", "\\040", "\\9", " - ", "-", "é", "rw", "proc"])),
        ) {
            let most = text.0.iter().filter(|byte| **byte == b'\n').count() + 1;
            let found: Vec<Mounted> = parse(&text.0).collect();
            let length = |mounted: &Mounted| mounted.root.as_os_str().len() + mounted.point.as_os_str().len();
            prop_assert!(found.len() <= most && found.iter().map(length).sum::<usize>() <= text.0.len());
        }
    }
}
