//! `true` in a running container: by stock's client, and over the API.

use std::time::Instant;

use anyhow::ensure;

use crate::sections::Run;

pub(super) fn section(run: &mut Run) -> anyhow::Result<()> {
    for stack in &run.stacks {
        stack.run(&["run", "-d", "--name", "exec", "busybox", "sleep", "10000"])?;
    }
    run.interleave("exec", "exec-client", run.rounds, |stack, _| {
        stack.run(&["exec", "exec", "true"])
    })?;
    run.interleave("exec", "exec-api", run.rounds, |stack, _| {
        let (mut connection, mut stream) = (stack.connect()?, stack.connect()?);
        let body = r#"{"Cmd":["true"],"AttachStdout":true,"AttachStderr":true}"#;
        let started = Instant::now();
        let id = connection.create("/containers/exec/exec", body)?;
        // Its output ends with it.
        stream.request("POST", &format!("/exec/{id}/start"), "{}")?;
        let told = connection.json("GET", &format!("/exec/{id}/json"), "")?;
        let took = started.elapsed();
        ensure!(told["ExitCode"] == 0 && told["Running"] == false, "{told}");
        Ok(took)
    })?;
    for stack in &run.stacks {
        stack.run(&["rm", "-f", "exec"])?;
    }
    Ok(())
}
