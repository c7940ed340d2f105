//! `run`: create and start in one, in the foreground unless detached.

use anyhow::Context as _;

use super::create::{self, Options};
use super::{Globals, delete, parse_one, start};
use crate::args::Flag;
use crate::foreground::Foreground;
use crate::notify::{Forward, Notify};
use crate::sys;
use crate::trace::Laps;

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
    let mut laps = Laps::part("run", &globals.timings);
    let mut running = || -> anyhow::Result<u8> {
        let options = Options::new(globals, &parsed)?;
        let bundle = options.load()?;
        let terminal = bundle.wants_terminal();
        let detach = parsed.is_set("detach");
        options.check_terminal(terminal, detach)?;
        if detach {
            let console = options.connect_console()?;
            let made = create::make(globals, &id, &bundle, &options, console)?;
            laps.lap("create");
            let notify = or_destroy(globals, &made, release(&made))?;
            laps.lap("start");
            let create::Made { container, lock } = made;
            drop(lock);
            if let Some(forward) = connected(globals, notify)
                && let Err(error) = forward.wait(&globals.log, container.record.pid)
            {
                globals.log.warn(&format!("{error:#}"));
            }
            return Ok(0);
        }
        if !parsed.is_set("no-subreaper") {
            sys::identity::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).context("set subreaper")?;
        }
        let mut foreground = Foreground::new(terminal)?;
        let made = create::make(globals, &id, &bundle, &options, foreground.console())?;
        let pid = made.container.record.pid;
        or_destroy(globals, &made, foreground.take_terminal())?;
        laps.lap("create");
        let notify = or_destroy(globals, &made, release(&made))?;
        foreground.forward_readiness(connected(globals, notify));
        laps.lap("start");
        // Others may kill and delete it while we wait.
        let create::Made { container, lock } = made;
        drop(lock);
        let code = foreground.wait(pid)?;
        laps.lap("container");
        if !parsed.is_set("keep") && container.dir_exists() {
            let _lock = container.lock()?;
            delete::destroy(globals, &container)?;
            laps.lap("delete");
        }
        Ok(code)
    };
    running().context("runc run failed")
}

/// Compat: nobody to tell is no error here.
fn connected(globals: &Globals, notify: Option<Notify>) -> Option<Forward> {
    let connected = notify?.connect();
    connected.inspect_err(|error| globals.log.warn(&error.to_string())).ok()
}

fn release(made: &create::Made) -> anyhow::Result<Option<Notify>> {
    let notify = Notify::listen(&made.container)?;
    start::release(&made.container).map(|()| notify)
}

/// A container that cannot be started shall not be.
pub(super) fn or_destroy<T>(
    globals: &Globals,
    made: &create::Made,
    result: anyhow::Result<T>,
) -> anyhow::Result<T> {
    result.inspect_err(|_| {
        drop(delete::kill_first(&made.container));
        if let Err(also) = delete::destroy(globals, &made.container) {
            globals.log.warn(&also.to_string());
        }
    })
}
