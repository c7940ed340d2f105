//! A process that holds namespaces open: what a caller prepares before it calls the runtime.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};

use crate::bundle::Bundle;

/// Lives in a namespace of its own that a script has prepared; ends with the test.
pub(crate) struct Holder {
    child: Child,
    kind: &'static str,
}

impl Holder {
    /// `kind` as unshare(1) and nsenter(1) call it.
    pub(crate) fn new(kind: &'static str, script: &str) -> Self {
        let mut command = Command::new("unshare");
        command.arg(format!("--{kind}"));
        if kind == "mount" {
            command.args(["--propagation", "private"]);
        }
        command.args(["sh", "-c"]).arg(format!("set -e; {script}; echo ready; exec cat"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let mut line = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        Self { child, kind }
    }

    /// By the name it has in procfs.
    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.child.id())
    }

    pub(crate) fn output(&self, command: &Command) -> Output {
        Command::new("nsenter")
            .arg(format!("--target={}", self.child.id()))
            .arg(format!("--{}", self.kind))
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs the runtime in there.
    pub(crate) fn run(&self, bundle: &Bundle) -> Output {
        let path = bundle.path().to_str().unwrap();
        self.output(&bundle.command(&["run", "-b", path, &bundle.id]))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}
