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

    properties! {
        #[test]
        fn what_the_kernel_writes_is_what_is_mounted(noise) {
            let mut text = Vec::new();
            let wanted = noise.list(4, |noise| {
                let mut path = || {
                    let bytes = noise.list(6, |noise| noise.pick(b"a \t\n\\#-/\xc3\xa9\xff047"));
                    PathBuf::from(OsString::from_vec([b"/".as_slice(), &bytes].concat()))
                };
                let (root, point) = (path(), path());
                text.extend(b"7 1 0:9 ");
                text.extend(escaped(root.as_os_str().as_bytes()));
                text.push(b' ');
                text.extend(escaped(point.as_os_str().as_bytes()));
                let (kind, options) = (noise.pick(&["cgroup", "proc", "fuse.x"]), noise.pick(&["rw", "rw,memory"]));
                let shared = noise.pick(&["", " shared:9", " shared:9 master:1", " unbindable"]);
                text.extend(format!(" rw,nosuid{shared} - {kind} {} {options}\n", noise.pick(&["", "none"])).bytes());
                Mounted { root, point, kind: kind.into(), options: options.into() }
            });
            assert_eq!(parse(&text).collect::<Vec<_>>(), wanted, "{}", String::from_utf8_lossy(&text));
        }

        #[test]
        fn broken_lines_are_left_out(noise) {
            let pieces = ["1", " ", " ", " ", "/", "\\0", "\\040", "\\9", " - ", "-", "é", "rw", "proc"];
            let mut text = noise.lines(&pieces).into_bytes();
            noise.tear(&mut text);
            let most = text.iter().filter(|byte| **byte == b'\n').count() + 1;
            let found: Vec<Mounted> = parse(&text).collect();
            let length = |mounted: &Mounted| mounted.root.as_os_str().len() + mounted.point.as_os_str().len();
            assert!(found.len() <= most && found.iter().map(length).sum::<usize>() <= text.len());
        }
    }
}
