//! A row's stack, and the scenarios by name.

use integration_tests::Stack;
use integration_tests::sandbox::{Layout, until};

use crate::client::Client;
use crate::matrix::Row;
use crate::{basics, containerd, engine, neighbours, podman, restarts, sdk};

pub(crate) struct World {
    pub(crate) stack: Stack,
    row: Row,
}

pub(crate) type Scenario = fn(&World);

const SCENARIOS: [(&str, Scenario); 35] = [
    ("output", basics::output),
    ("exit-codes", basics::exit_codes),
    ("streams", basics::streams),
    ("stdin", basics::stdin),
    ("bytes", basics::bytes),
    ("terminal", basics::terminal),
    ("exec", basics::exec),
    ("killed", basics::killed),
    ("detached", engine::detached),
    ("ports", engine::ports),
    ("volumes", engine::volumes),
    ("attach", engine::attach),
    ("logs", engine::logs),
    ("stop", engine::stop),
    ("signals", engine::signals),
    ("rm", engine::rm),
    ("limits", engine::limits),
    ("pull", pull),
    ("load", engine::load),
    ("refusals", engine::refusals),
    ("import", containerd::import),
    ("tasks", containerd::tasks),
    ("events", containerd::events),
    ("objects", containerd::objects),
    ("engine-restart", restarts::engine_restart),
    ("engine-away", restarts::engine_away),
    ("containerd-restart", restarts::containerd_restart),
    ("rotation", restarts::rotation),
    ("ports-from-outside", neighbours::ports_from_outside),
    ("forward-drop", neighbours::forward_drop),
    ("another-docker", neighbours::another_docker),
    ("docker-py", sdk::docker_py),
    ("docker-go", sdk::docker_go),
    ("docker-go-pinned", sdk::docker_go_pinned),
    ("bollard", sdk::in_process),
];

pub(crate) fn scenario(name: &str) -> Option<Scenario> {
    SCENARIOS.iter().find(|(own, _)| *own == name).map(|(_, scenario)| *scenario)
}

fn pull(world: &World) {
    if world.client().is_ctr() { containerd::pull(world) } else { engine::pull(world) }
}

impl World {
    /// The stack of a row, with busybox.
    pub(crate) fn start(row: &Row) -> Self {
        let peers = row.peers().expect("checked when it was read");
        let mut parts =
            Stack::ours().peers(peers).shim(row.shim.path()).runtime(row.runtime.path());
        if let Some(engine) = &row.engine {
            parts = parts.engine(engine.path());
            if !row.client.is_library() {
                parts = parts.cli(row.client.path());
            }
            if !engine.is_ours() {
                // Ours lets containers live without being asked to.
                parts = parts.argument("--live-restore");
            }
        } else if row.containerd.is_some() {
            parts = parts.ctr(row.client.path()).without_engine();
        } else {
            parts = parts.without_daemons();
        }
        // An engine of ours starts its own.
        let alone = row.engine.as_ref().is_none_or(|engine| !engine.is_ours());
        if let Some(containerd) = &row.containerd
            && (alone || !containerd.is_ours())
        {
            parts = parts.containerd(containerd.path());
        }
        // crun refuses a hybrid host whose unified side has controllers.
        if row.runtime.program == "crun" && hybrid() {
            parts = parts.cgroup(Layout::V1);
        }
        let world = Self { stack: parts.with_busybox().start(), row: row.clone() };
        if row.client.is_podman() {
            podman::prepare(&world);
        }
        world
    }

    pub(crate) fn row(&self) -> &Row {
        &self.row
    }

    pub(crate) fn client(&self) -> Client<'_> {
        if self.row.client.is_podman() {
            Client::podman(&self.stack)
        } else if self.row.engine.is_some() {
            Client::docker(&self.stack)
        } else {
            Client::ctr(&self.stack, self.runtime_type())
        }
    }

    pub(crate) fn runtime_type(&self) -> &'static str {
        if self.row.own_name { "io.containerd.runc-rs.v2" } else { "io.containerd.runc.v2" }
    }

    /// Compat: stock ctr closes its ends of the fifos as soon as it hears of the exit, and stock shims tell
    /// of it before these are read.
    pub(crate) fn loses_output_at_the_exit(&self) -> bool {
        self.client().is_ctr() && !self.row.client.is_ours() && !self.row.shim.is_ours()
    }

    /// Waits until no shim runs any more, and no bundle is left where the harness knows the place.
    pub(crate) fn is_quiet(&self) {
        until("the shims have ended", || {
            !self
                .stack
                .sandbox()
                .processes()
                .iter()
                .any(|one| one.name.starts_with("containerd-shim"))
        });
        let bundles = self.stack.sandbox().path("/run/c/io.containerd.runtime.v2.task");
        until("the bundles are gone", || {
            let namespaces = std::fs::read_dir(&bundles).into_iter().flatten().flatten();
            namespaces.flat_map(|one| std::fs::read_dir(one.path())).flatten().next().is_none()
        });
    }

    /// Ends a client inside that would go on for ever.
    pub(crate) fn end_program(&self, argument: &str) {
        let all = self.stack.sandbox().processes();
        let one = all.iter().find(|one| one.command.iter().any(|word| word == argument));
        let one = one.unwrap_or_else(|| panic!("nobody runs {argument}"));
        self.stack.sandbox().signal(one.inner, libc::SIGKILL);
    }
}

fn hybrid() -> bool {
    !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}
