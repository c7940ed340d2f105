//! `run`: create and start in one, in the foreground unless detached.

use anyhow::{Context as _, bail};

use super::create::{self, Options};
use super::{Globals, delete, parse_one, start};
use crate::args::Flag;
use crate::foreground::Foreground;
use crate::sys;

pub(super) const FLAGS: &[Flag] = &[
    ("bundle", "b", true),
    ("config", "f", true),
    ("console-socket", "", true),
    ("pidfd-socket", "", true),
    ("detach", "d", false),
    ("keep", "", false),
    ("pid-file", "", true),
    ("no-subreaper", "", false),
    ("no-pivot", "", false),
    ("no-new-keyring", "", false),
    ("preserve-fds", "", true),
];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let (parsed, id) = parse_one("run", arguments, FLAGS)?;
    let running = || -> anyhow::Result<u8> {
        let options = Options::new(globals, &parsed)?;
        let bundle = options.load()?;
        let terminal = bundle.wants_terminal();
        let detach = parsed.is_set("detach");
        if detach && terminal && options.console_socket.is_none() {
            bail!("cannot allocate tty if runc will detach without setting console socket");
        }
        if options.console_socket.is_some() && !(detach && terminal) {
            bail!("cannot use console socket if runc will not detach or allocate tty");
        }
        if detach {
            let console = options.connect_console()?;
            let made = create::make(globals, &id, &bundle, &options, console)?;
            or_destroy(globals, &made, start::release(&made.container))?;
            return Ok(0);
        }
        if !parsed.is_set("no-subreaper") {
            sys::identity::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).context("set subreaper")?;
        }
        let mut foreground = Foreground::new(terminal)?;
        let made = create::make(globals, &id, &bundle, &options, foreground.console())?;
        let pid = made.container.record.pid;
        or_destroy(globals, &made, foreground.take_terminal())?;
        or_destroy(globals, &made, start::release(&made.container))?;
        // Others may kill and delete it while we wait.
        let create::Made { container, lock } = made;
        drop(lock);
        let code = foreground.wait(pid)?;
        if !parsed.is_set("keep") && container.dir_exists() {
            let _lock = container.lock()?;
            delete::destroy(globals, &container)?;
        }
        Ok(code)
    };
    running().context("runc run failed")
}

/// A container that cannot be started shall not be.
fn or_destroy(
    globals: &Globals,
    made: &create::Made,
    result: anyhow::Result<()>,
) -> anyhow::Result<()> {
    if let Err(error) = result {
        drop(delete::kill_first(&made.container));
        if let Err(also) = delete::destroy(globals, &made.container) {
            globals.log.warn(&also.to_string());
        }
        return Err(error);
    }
    Ok(())
}
