//! `docker run --rm busybox true` by stock's client, and what podman takes for the same.

use std::process::Command;

use crate::samples::Side;
use crate::sections::{Party, Run, interleave};
use crate::world::World;

/// The command for these arguments.
type Words<'a> = Box<dyn Fn(&[&str]) -> Command + 'a>;

/// A client that runs containers: over one of the stacks, or podman without a daemon.
struct Client<'a> {
    side: Side,
    world: &'a World,
    command: Words<'a>,
    image: &'a str,
}

impl Party for Client<'_> {
    fn side(&self) -> Side {
        self.side
    }

    fn world(&self) -> &World {
        self.world
    }
}

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    let mut clients: Vec<Client> = run
        .stacks
        .iter()
        .map(|stack| Client {
            side: stack.side,
            world: &stack.world,
            command: Box::new(|arguments| stack.docker(arguments)),
            image: "busybox",
        })
        .collect();
    clients.extend(run.podman.as_ref().map(|podman| Client {
        side: Side::Podman,
        world: &podman.world,
        command: Box::new(|arguments| podman.command(arguments)),
        image: &podman.image,
    }));
    let rounds = run.rounds;
    for (measure, before, after) in [
        ("client --version", &["--version"][..], &[][..]),
        ("run-bridge", &["run", "--rm"], &["true"]),
        ("run-none", &["run", "--rm", "--network", "none"], &["true"]),
    ] {
        // The distribution's podman has no program that makes bridges among its needs.
        let asked = |client: &&Client| client.side != Side::Podman || measure != "run-bridge";
        let clients: Vec<&Client> = clients.iter().filter(asked).collect();
        interleave(&clients, &mut run.samples, "run", measure, rounds, |client, _| {
            let image = (!after.is_empty()).then_some(client.image);
            let arguments: Vec<&str> =
                before.iter().copied().chain(image).chain(after.iter().copied()).collect();
            client.world.run(&mut (client.command)(&arguments))
        })?;
    }
    Ok(())
}
