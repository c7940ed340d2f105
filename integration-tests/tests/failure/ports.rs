//! A published port answers whoever of the daemons is away. Stock's proxy ends with its daemon.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use integration_tests::Stack;
use integration_tests::sandbox::{PATIENCE, until};
use serde_json::json;

use crate::Victim;

const ADDRESS: &str = "127.0.0.1:8091";

fn ask(stack: &Stack) -> std::io::Result<String> {
    let mut socket = stack.sandbox().connect(ADDRESS.parse().unwrap())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks again and again until told to stop; counts the answers and keeps the first failure.
fn keep_asking(stack: &Stack, stop: &AtomicBool, answers: &AtomicUsize) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        let answer = ask(stack).map_err(|error| error.to_string())?;
        if !answer.contains("200 OK") {
            return Err(answer);
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn a_published_port_answers_throughout() {
    let stack = Stack::ours().with_busybox().start();
    let api = stack.api();
    let web = json!({
        "Image": "busybox",
        "Cmd": ["httpd", "-f", "-p", "80", "-h", "/var/www"],
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8091"}]}},
    });
    let id = api.run("web", &web);
    until("it serves", || ask(&stack).is_ok_and(|answer| answer.contains("200 OK")));
    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let more = |failed: &dyn Fn() -> bool| {
        let wanted = answers.load(Ordering::Relaxed) + 20;
        until("twenty answers more", || answers.load(Ordering::Relaxed) >= wanted || failed());
    };
    for victim in [Victim::Engine, Victim::Containerd, Victim::Both] {
        stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| keep_asking(&stack, &stop, &answers));
            let failed = || client.is_finished();
            more(&failed);
            victim.die(&stack);
            more(&failed);
            victim.come_back(&stack);
            more(&failed);
            stop.store(true, Ordering::Relaxed);
            assert_eq!(client.join().unwrap(), Ok(()), "{victim:?}");
        });
    }
    // Still the container's, and free when it has ended.
    let taken = api.create("taken", &web);
    let refused = api.post(&format!("/containers/{taken}/start"));
    assert!(refused.message().contains("port is already allocated"), "{}", refused.text());
    api.post("/containers/web/stop?t=0").expect(204);
    assert!(ask(&stack).is_err());
    api.post(&format!("/containers/{taken}/start")).expect(204);
    assert_eq!(api.inspect(&id)["State"]["Status"], "exited");
    stack.end();
}
