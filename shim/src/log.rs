//! The shim's own log: lines in logrus' text form into the bundle's `log` fifo, which containerd reads.
//!
//! The fifo is opened for each line and never waited for: without a reader, or with a full one, the line is
//! dropped. Nothing is held open meanwhile.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use container_log::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Warning,
    Error,
}

pub(crate) fn write(bundle: &Path, level: Level, container: &str, message: &str) {
    let level = match level {
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let line = format!(
        "time=\"{}\" level={level} msg={message:?} container={container:?}\n",
        Timestamp::new(Timestamp::now().seconds(), 0)
    );
    let fifo =
        OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(bundle.join("log"));
    if let Ok(mut fifo) = fifo {
        // Dropped on purpose, see above.
        fifo.write_all(line.as_bytes()).ok();
    }
}
