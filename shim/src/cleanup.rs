//! `delete`: what is left when a server died. Called by containerd with the bundle as current directory.

use std::env;
use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use prost::Message as _;
use proto::containerd::task::v2::DeleteResponse;

use crate::args::Args;
use crate::bundle::{RuntimeOptions, read_pid, resolve_runtime};
use crate::runtime::Runtime;
use crate::sys;

/// Compat: stock reports a container that was lost as killed.
const KILLED: u32 = 128 + 9;

pub(crate) fn delete(args: &Args) -> anyhow::Result<()> {
    let bundle = env::current_dir().context("current directory")?;
    let options = RuntimeOptions::load(&bundle);
    let mut warnings = Vec::new();
    match runtime_of(&bundle, args, &options) {
        Ok(runtime) => {
            let mut command = runtime.command(None);
            command.args(["delete", "--force", &args.id]);
            match command.output() {
                Ok(output) if output.status.success() => {}
                Ok(output) => {
                    let text = String::from_utf8_lossy(&output.stderr);
                    if !text.contains("does not exist") {
                        warnings.push(format!("failed to remove the container: {}", text.trim()));
                    }
                }
                Err(error) => warnings.push(format!("failed to call the runtime: {error}")),
            }
        }
        Err(error) => warnings.push(error.to_string()),
    }
    let rootfs = CString::new(bundle.join("rootfs").as_os_str().as_bytes())?;
    if let Err(error) = sys::unmount_all(&rootfs) {
        warnings.push(format!("failed to unmount the rootfs: {error}"));
    }
    remove_dead_socket(&bundle);
    for warning in warnings {
        writeln!(io::stderr(), "{warning}").ok();
    }
    let answer = DeleteResponse {
        pid: read_pid(&bundle.join("init.pid")).unwrap_or(0),
        exit_status: KILLED,
        exited_at: Some(SystemTime::now().into()),
    };
    io::stdout().write_all(&answer.encode_to_vec()).context("answer on stdout")
}

fn runtime_of(bundle: &Path, args: &Args, options: &RuntimeOptions) -> anyhow::Result<Runtime> {
    let recorded = fs::read_to_string(bundle.join("runtime")).unwrap_or_default();
    let name = if recorded.trim().is_empty() { &options.binary_name } else { recorded.trim() };
    Ok(Runtime {
        path: resolve_runtime(name, args.is_stock_name())?,
        root: options.root_of(&args.namespace),
        systemd_cgroup: options.systemd_cgroup,
    })
}

/// A pod's shim may still serve others on it.
fn remove_dead_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else { return };
    let path = address.trim().trim_start_matches("unix://").to_owned();
    let refused = std::os::unix::net::UnixStream::connect(&path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if refused {
        fs::remove_file(path).ok();
    }
}
