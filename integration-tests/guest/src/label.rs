//! `guest label PATH…`: the SELinux label of each, and of the session's keyring for `@session`. It stands
//! in for the `ls -Z`, `getfattr` and `keyctl security` that no container of ours has.

use std::io::{self, Write};

use crate::sys;

pub(crate) fn tell(out: &mut impl Write, paths: &[String]) -> io::Result<()> {
    for path in paths {
        let label = match path.as_str() {
            "@session" => sys::session_keyring_label(),
            path => sys::file_label(path),
        };
        let label = label.map_or_else(|error| error.to_string(), |bytes| text(&bytes));
        writeln!(out, "{path} {label}")?;
    }
    Ok(())
}

fn text(label: &[u8]) -> String {
    String::from_utf8_lossy(label).trim_end_matches('\0').to_owned()
}
