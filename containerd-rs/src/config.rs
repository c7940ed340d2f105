//! containerd's command line and configuration file, with defaults applied.
//!
//! The file is containerd's `config.toml` (versions 1 to 4 of its format differ only in plugin
//! tables). Keys that mean something here are read; all others are tolerated, as containerd does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

/// What is wrong with file or command line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("failed to load TOML: {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("failed to load TOML: {}: {source}", path.display())]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("expected containerd config version equal to or less than `{MAX_VERSION}`, got `{0}`")]
    Version(i64),
    #[error("unknown log level {0:?}: one of trace, debug, info, warn, error, fatal, panic")]
    Level(String),
    #[error("{0} must be an absolute path, got {1:?}")]
    Relative(&'static str, PathBuf),
}

/// The container supervisor: containerd's services over its gRPC socket.
#[derive(Debug, Parser)]
#[command(name = "containerd-rs", version = crate::VERSION_LINE, disable_version_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Anything else is a mistake; see [`Arguments::stray`].
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    stray: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Path to the configuration file
    #[arg(short, long, global = true, default_value = "/etc/containerd-rs/config.toml")]
    pub(crate) config: PathBuf,
    /// Address of the gRPC socket
    #[arg(short, long, global = true)]
    address: Option<PathBuf>,
    /// Directory of what persists
    #[arg(long, global = true)]
    root: Option<PathBuf>,
    /// Directory of what ends with the boot
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    /// One of trace, debug, info, warn, error, fatal, panic
    #[arg(short, long, global = true)]
    log_level: Option<String>,
    /// File to write the process id to
    #[arg(long, global = true)]
    pub(crate) pidfile: Option<PathBuf>,
    /// Print the version
    #[arg(short, long)]
    pub(crate) version: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Information on the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the defaults
    Default,
    /// Print what is in force
    Dump,
}

impl Arguments {
    /// The sentence for arguments that belong to the client.
    pub(crate) fn stray(&self) -> Option<String> {
        let first = self.stray.first()?;
        Some(format!(
            "unknown command {first:?}: containerd-rs is the daemon and takes only flags; \
             for `{first}` use the client: ctr-rs {}",
            self.stray.join(" ")
        ))
    }
}

/// The configuration in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) version: i64,
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) oom_score: i32,
    pub(crate) grpc: Grpc,
    pub(crate) ttrpc: Ttrpc,
    pub(crate) debug: Debug,
    pub(crate) plugins: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Grpc {
    pub(crate) address: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) max_recv_message_size: usize,
    pub(crate) max_send_message_size: usize,
}

/// Empty: `<grpc address>.ttrpc` and the owner of the gRPC socket.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ttrpc {
    pub(crate) address: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Debug {
    pub(crate) level: String,
    /// `text` or `json`.
    pub(crate) format: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: 2,
            root: "/var/lib/containerd-rs".into(),
            state: "/run/containerd-rs".into(),
            oom_score: 0,
            grpc: Grpc::default(),
            ttrpc: Ttrpc::default(),
            debug: Debug::default(),
            plugins: BTreeMap::new(),
        }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            address: "/run/containerd-rs/containerd.sock".into(),
            uid: 0,
            gid: 0,
            max_recv_message_size: MAX_MESSAGE,
            max_send_message_size: MAX_MESSAGE,
        }
    }
}

impl Config {
    /// File, then flags. Compat: a missing file counts as an empty one.
    pub(crate) fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut config = Self::read(&flags.config)?;
        let set = |target: &mut PathBuf, flag: &Option<PathBuf>| {
            if let Some(path) = flag {
                target.clone_from(path);
            }
        };
        set(&mut config.grpc.address, &flags.address);
        set(&mut config.root, &flags.root);
        set(&mut config.state, &flags.state);
        if let Some(level) = &flags.log_level {
            config.debug.level.clone_from(level);
        }
        if config.debug.level.is_empty() {
            config.debug.level = "info".to_owned();
        }
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.version > MAX_VERSION {
            return Err(ConfigError::Version(self.version));
        }
        self.level()?;
        for (name, path) in
            [("root", &self.root), ("state", &self.state), ("address", &self.grpc.address)]
        {
            if !path.is_absolute() {
                return Err(ConfigError::Relative(name, path.clone()));
            }
        }
        Ok(())
    }

    /// logrus's level names as tracing's.
    pub(crate) fn level(&self) -> Result<tracing::Level, ConfigError> {
        Ok(match self.debug.level.as_str() {
            "trace" => tracing::Level::TRACE,
            "debug" => tracing::Level::DEBUG,
            "info" | "" => tracing::Level::INFO,
            "warn" | "warning" => tracing::Level::WARN,
            "error" | "fatal" | "panic" => tracing::Level::ERROR,
            other => return Err(ConfigError::Level(other.to_owned())),
        })
    }

    pub(crate) fn ttrpc_address(&self) -> PathBuf {
        if !self.ttrpc.address.as_os_str().is_empty() {
            return self.ttrpc.address.clone();
        }
        let mut address = self.grpc.address.clone().into_os_string();
        address.push(".ttrpc");
        address.into()
    }

    /// Shim binaries by runtime name: `[plugins."io.containerd.runc-rs".shims]`, our own table.
    pub(crate) fn shims(&self) -> BTreeMap<String, PathBuf> {
        let table = self.plugins.get("io.containerd.runc-rs").and_then(|table| table.get("shims"));
        let Some(table) = table.and_then(toml::Value::as_table) else { return BTreeMap::new() };
        table
            .iter()
            .filter_map(|(name, path)| Some((name.clone(), PathBuf::from(path.as_str()?))))
            .collect()
    }
}

const MAX_VERSION: i64 = 4;
/// containerd's default for messages in both directions.
const MAX_MESSAGE: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(text: &str, arguments: &[&str]) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_string_lossy().into_owned();
        let all = ["containerd-rs", "--config", &path].into_iter().chain(arguments.iter().copied());
        Config::load(&Arguments::parse_from(all).flags)
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_tolerated() {
        let text = "version = 2\nroot = '/r'\nstate = '/s'\nnew_key = 1\n\
                    [grpc]\naddress = '/a.sock'\ngid = 7\ntcp_address = ''\n[debug]\nlevel = 'debug'\n\
                    [plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'x'\n";
        let config = load(text, &["--root", "/other", "-l", "warn"]).unwrap();
        assert_eq!(config.root, Path::new("/other"));
        assert_eq!(config.state, Path::new("/s"));
        assert_eq!(config.grpc.gid, 7);
        assert_eq!(config.level().unwrap(), tracing::Level::WARN);
        assert_eq!(config.ttrpc_address(), Path::new("/a.sock.ttrpc"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(matches!(load("version = 9", &[]), Err(ConfigError::Version(9))));
        assert!(matches!(load("root = 'r'", &[]), Err(ConfigError::Relative("root", _))));
        assert!(matches!(load("", &["-l", "loud"]), Err(ConfigError::Level(_))));
        assert!(matches!(load("[", &[]), Err(ConfigError::Parse { .. })));
    }

    #[test]
    fn stray_arguments_name_the_client() {
        let arguments = Arguments::parse_from(["containerd-rs", "run", "--rm", "busybox"]);
        let sentence = arguments.stray().unwrap();
        assert!(sentence.contains("ctr-rs run --rm busybox"), "{sentence}");
    }

    const FILE: &str = r#"version = 2
root = "/r"
oom_score = -999
[grpc]
address = "/a.sock"
gid = 1
max_recv_message_size = 16777216
[debug]
level = "debug"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "x"
[plugins."io.containerd.runc-rs".shims]
"io.containerd.runc.v2" = "/bin/x"
"y" = "z"
"#;
    const WORDS: &[&str] = &[
        "",
        "=",
        "[",
        "]",
        "\"",
        "\n",
        "-1",
        "nan",
        "1979-05-27",
        "{}",
        "é",
        "[[a]]\n",
        "9223372036854775808",
    ];

    proptest! {
        #[test]
        fn broken_files_are_errors_or_can_be_dumped(
            edits in proptest::collection::vec((0..FILE.len(), 0_usize..10, 0..WORDS.len()), 0..5),
        ) {
            let mut text = FILE.as_bytes().to_vec();
            for (at, cut, word) in edits {
                let at = at.min(text.len());
                text.splice(at..(at + cut).min(text.len()), WORDS[word].bytes());
            }
            let text = String::from_utf8_lossy(&text);
            let Ok(config) = toml::from_str::<Config>(&text) else { return Ok(()) };
            drop(config.check());
            prop_assert!(config.shims().len() <= 2);
            let dumped = toml::to_string(&config).unwrap();
            let again: Config = toml::from_str(&dumped).unwrap();
            prop_assert_eq!(toml::to_string(&again).unwrap(), dumped);
        }
    }
}
