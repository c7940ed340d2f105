//! `start`: binds the socket, forks the server, and answers in the form the caller understands.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use prost::Message as _;
use proto::containerd::runc::v1::Options;
use proto::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use sha2::{Digest as _, Sha256};

use crate::args::Args;
use crate::bundle::{SpecExcerpt, replace};
use crate::trace::Open;
use crate::{log, serve, sys};

/// How the caller wants to be answered.
enum Caller {
    /// Flags only, or flags and runtime options: a bare address.
    Legacy(Option<Options>),
    /// containerd from 2.3 on.
    Params(Box<BootstrapParams>),
}

pub(crate) fn start(args: &Args) -> anyhow::Result<()> {
    let begun = trace_log::now();
    let bundle = env::current_dir().context("current directory")?;
    let caller = read_caller(args);
    let spec = SpecExcerpt::load(&bundle)?;
    let group = spec.group().unwrap_or(&args.id);
    let socket = socket_path(args, &caller, group);
    let address = format!("unix://{}", socket.display());
    let Some(listener) = bind(&socket)? else {
        // The pod's shim is alive already.
        replace(&bundle.join("address"), address.as_bytes())?;
        return answer(&caller, &address);
    };
    replace(&bundle.join("address"), address.as_bytes())?;
    let config = serve::Config {
        namespace: args.namespace.clone(),
        bundle: bundle.clone(),
        socket: socket.clone(),
        events: events_address(args, &caller),
        under_stock_name: args.is_stock_name(),
    };
    let server = sys::fork_single_threaded(move || {
        let (bundle, id) = (config.bundle.clone(), args.id.clone());
        match detach(&listener)
            .map_err(anyhow::Error::from)
            .and_then(|()| serve::run(listener, config))
        {
            Ok(()) => 0,
            Err(error) => {
                log::write(&bundle, log::Level::Error, &id, &format!("{error:#}"));
                1
            }
        }
    })
    .context("fork")?;
    // Best effort, as in stock: an unprivileged caller may not do either.
    adjust_oom_score(server.as_raw());
    if let Caller::Legacy(Some(options)) = &caller {
        crate::cgroup::join(&options.shim_cgroup, server.as_raw());
    }
    replace(&bundle.join("shim.pid"), server.to_string().as_bytes())?;
    if let Some(place) = spec.trace() {
        let caller = env::var(trace_log::CALLER_VARIABLE).ok();
        drop(Open::new(place.called_by(caller.as_deref()), "bootstrap", begun));
    }
    answer(&caller, &address)
}

/// Leaves the caller's session and its descriptors; stdout in particular, whose end the caller awaits.
fn detach(listener: &UnixListener) -> io::Result<()> {
    rustix::process::setsid()?;
    sys::close_all_but(listener.as_fd());
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    rustix::stdio::dup2_stderr(null.as_fd())?;
    Ok(())
}

fn read_caller(args: &Args) -> Caller {
    let mut input = Vec::new();
    let stdin = io::stdin();
    // A shim that is called by hand should not wait for its terminal.
    if !stdin.is_terminal() {
        stdin.take(4 << 20).read_to_end(&mut input).ok();
    }
    parse_caller(&input, args)
}

/// An Any with options parses as BootstrapParams too, so the params must repeat the flags.
fn parse_caller(input: &[u8], args: &Args) -> Caller {
    if let Ok(params) = BootstrapParams::decode(input)
        && params.instance_id == args.id
        && params.namespace == args.namespace
    {
        return Caller::Params(Box::new(params));
    }
    let options = prost_types::Any::decode(input).ok();
    Caller::Legacy(options.and_then(|any| proto::any::unpack::<Options>(&any).ok()))
}

fn answer(caller: &Caller, address: &str) -> anyhow::Result<()> {
    let bytes = match caller {
        Caller::Legacy(_) => address.as_bytes().to_vec(),
        Caller::Params(_) => BootstrapResult {
            version: 3,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
    };
    let mut stdout = io::stdout();
    stdout.write_all(&bytes).and_then(|()| stdout.flush()).context("answer on stdout")
}

fn events_address(args: &Args, caller: &Caller) -> PathBuf {
    let named = match caller {
        Caller::Params(params) => params.containerd_ttrpc_address.clone(),
        Caller::Legacy(_) => env::var("TTRPC_ADDRESS").unwrap_or_default(),
    };
    if named.is_empty() { format!("{}.ttrpc", args.address).into() } else { named.into() }
}

fn socket_path(args: &Args, caller: &Caller, group: &str) -> PathBuf {
    let named = match caller {
        Caller::Params(params) => params.socket_dir.clone().filter(|dir| !dir.is_empty()),
        Caller::Legacy(_) => None,
    };
    let beside = Path::new(&args.address).parent().filter(|dir| dir.is_absolute());
    let directory = match (named, beside) {
        (Some(directory), _) => directory.into(),
        (None, Some(beside)) => beside.join("s"),
        (None, None) => PathBuf::from(FALLBACK_DIRECTORY),
    };
    let digest = Sha256::digest(format!("{}/{}/{group}", args.address, args.namespace));
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = directory.join(&name);
    // A unix socket's path holds 107 bytes, and a console socket's suffix must fit.
    if path.as_os_str().len() > 96 { Path::new(FALLBACK_DIRECTORY).join(name) } else { path }
}

/// Binds, or finds that a living shim listens already (`None`).
fn bind(path: &Path) -> anyhow::Result<Option<UnixListener>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(None);
            }
            fs::remove_file(path).with_context(|| format!("remove stale {}", path.display()))?;
            UnixListener::bind(path)
        }
        other => other,
    };
    let listener = listener.with_context(|| format!("bind {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(Some(listener))
}

/// One more than containerd's, so that the kernel takes the shim before containerd, the container first.
fn adjust_oom_score(server: i32) {
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    let score = fs::read_to_string(format!("/proc/{parent}/oom_score_adj"))
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
        .unwrap_or(0);
    let file = OpenOptions::new().write(true).open(format!("/proc/{server}/oom_score_adj"));
    let write = |mut file: File| file.write_all((score + 1).min(1000).to_string().as_bytes());
    file.and_then(write).ok();
}

const FALLBACK_DIRECTORY: &str = "/run/containerd/s";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn args(address: &str) -> Args {
        Args::parse(
            ["shim", "-namespace", "ns", "-id", "c", "-address", address, "start"].map(Into::into),
        )
        .unwrap()
    }

    #[test]
    fn the_socket_lies_beside_containerds() {
        let caller = Caller::Legacy(None);
        let path = socket_path(&args("/run/containerd/containerd.sock"), &caller, "c");
        assert_eq!(path.parent(), Some(Path::new("/run/containerd/s")));
        assert_eq!(path.file_name().unwrap().len(), 16);
        let long = format!("/{}/c.sock", "x".repeat(90));
        let path = socket_path(&args(&long), &caller, "c");
        assert_eq!(path.parent(), Some(Path::new(FALLBACK_DIRECTORY)));
    }

    #[test]
    fn params_must_repeat_the_flags() {
        let args = args("/x");
        let mut params = BootstrapParams {
            instance_id: "c".into(),
            namespace: "ns".into(),
            ..Default::default()
        };
        assert!(matches!(parse_caller(&params.encode_to_vec(), &args), Caller::Params(_)));
        params.instance_id = "d".into();
        assert!(matches!(parse_caller(&params.encode_to_vec(), &args), Caller::Legacy(None)));
        let any = proto::any::pack(&Options { io_uid: 5, ..Default::default() });
        let caller = parse_caller(&any.encode_to_vec(), &args);
        assert!(matches!(caller, Caller::Legacy(Some(options)) if options.io_uid == 5));
        assert!(matches!(parse_caller(b"\xff\xff", &args), Caller::Legacy(None)));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s/x");
        let first = bind(&path).unwrap().unwrap();
        assert!(bind(&path).unwrap().is_none());
        drop(first);
        assert!(bind(&path).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn a_broken_caller_gets_an_answer_of_the_old_form(
            bytes in proptest::collection::vec(any::<u8>(), 0..60), mode in 0_usize..3,
            edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        ) {
            let args = args("/run/containerd/containerd.sock");
            let params = BootstrapParams { instance_id: "c".into(), namespace: "ns".into(), ..Default::default() };
            let any = proto::any::pack(&Options { binary_name: "x".into(), ..Default::default() });
            let mut input = vec![bytes, params.encode_to_vec(), any.encode_to_vec()].swap_remove(mode);
            for (at, byte) in edits {
                let at = at % (input.len() + 1);
                input.splice(at..(at + 1).min(input.len()), [byte]);
            }
            match parse_caller(&input, &args) {
                Caller::Params(params) => prop_assert_eq!(params.instance_id, "c"),
                Caller::Legacy(options) => prop_assert!(options.is_none_or(|options| options.encoded_len() <= input.len())),
            }
        }

        #[test]
        fn a_socket_has_a_path_the_kernel_takes(
            address in "/?([a-z.]{0,40}/){0,5}[a-z]{0,9}",
            directory in proptest::option::of("/[a-z/]{0,130}"),
        ) {
            let params = BootstrapParams { socket_dir: directory, ..Default::default() };
            for caller in [Caller::Legacy(None), Caller::Params(Box::new(params))] {
                let path = socket_path(&args(&address), &caller, "group");
                prop_assert!(path.is_absolute() && path.as_os_str().len() <= 96, "{}", path.display());
            }
        }
    }
}
