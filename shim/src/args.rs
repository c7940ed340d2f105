//! The command line that containerd gives a shim: Go's flag syntax (`-flag value`, `-flag=value`, `--flag`).

use std::ffi::OsString;
use std::path::Path;

/// Our own name.
pub(crate) const PROGRAM: &str = "containerd-shim-runc-rs-v2";
/// The stock shim's name; under it the stock runtime is the default.
pub(crate) const STOCK_PROGRAM: &str = "containerd-shim-runc-v2";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Delete,
    Version,
    Info,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) program: String,
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) bundle: String,
    pub(crate) debug: bool,
    pub(crate) action: Action,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("argument is not UTF-8")]
    NotUtf8,
    #[error("{action}: flag -{flag} is missing")]
    Missing { action: String, flag: &'static str },
    #[error("expected start or delete, found {0:?}")]
    Action(String),
}

impl Args {
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, ArgsError> {
        let mut args =
            args.into_iter().map(|arg| arg.into_string().map_err(|_| ArgsError::NotUtf8));
        let program = args.next().transpose()?.unwrap_or_default();
        let program = Path::new(&program).file_name().and_then(|name| name.to_str());
        let mut parsed = Self {
            program: program.unwrap_or(PROGRAM).to_owned(),
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: String::new(),
            debug: false,
            action: Action::Start,
        };
        let mut special = None;
        let mut verb = String::new();
        while let Some(arg) = args.next().transpose()? {
            let Some(flag) = arg.strip_prefix('-') else {
                verb = arg;
                break;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            };
            let switch =
                || inline.as_deref().is_none_or(|value| matches!(value, "true" | "1" | "t"));
            match name.as_str() {
                "debug" => parsed.debug = switch(),
                "v" | "version" => special = switch().then_some(Action::Version).or(special),
                "info" => special = switch().then_some(Action::Info).or(special),
                "namespace" | "id" | "address" | "bundle" | "publish-binary" | "socket"
                | "debug-socket" => {
                    let value = match inline {
                        Some(value) => value,
                        None => args.next().transpose()?.ok_or(ArgsError::NoValue(name.clone()))?,
                    };
                    match name.as_str() {
                        "namespace" => parsed.namespace = value,
                        "id" => parsed.id = value,
                        "address" => parsed.address = value,
                        "bundle" => parsed.bundle = value,
                        // Events go over ttrpc, and the socket is passed by inheritance.
                        _ => {}
                    }
                }
                _ => return Err(ArgsError::Unknown(name)),
            }
        }
        if let Some(special) = special {
            parsed.action = special;
            return Ok(parsed);
        }
        parsed.action = match verb.as_str() {
            "start" => Action::Start,
            "delete" => Action::Delete,
            _ => return Err(ArgsError::Action(verb)),
        };
        for (flag, value) in [("namespace", &parsed.namespace), ("id", &parsed.id)] {
            if value.is_empty() {
                return Err(ArgsError::Missing { action: verb, flag });
            }
        }
        Ok(parsed)
    }

    pub(crate) fn is_stock_name(&self) -> bool {
        self.program == STOCK_PROGRAM
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(args: &[&str]) -> Result<Args, ArgsError> {
        Args::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn containerds_call_is_understood() {
        let args = parse(&[
            "/usr/bin/containerd-shim-runc-v2",
            "-namespace",
            "moby",
            "--address=/run/c.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "abc",
            "-debug",
            "start",
        ])
        .unwrap();
        assert_eq!((args.namespace.as_str(), args.id.as_str()), ("moby", "abc"));
        assert_eq!(args.address, "/run/c.sock");
        assert!(args.debug && args.is_stock_name());
        assert_eq!(args.action, Action::Start);
    }

    #[test]
    fn bad_calls_are_named() {
        assert_eq!(parse(&["x", "-nope"]), Err(ArgsError::Unknown("nope".into())));
        assert_eq!(parse(&["x", "-id"]), Err(ArgsError::NoValue("id".into())));
        assert_eq!(parse(&["x", "run"]), Err(ArgsError::Action("run".into())));
        let missing = ArgsError::Missing { action: "start".into(), flag: "namespace" };
        assert_eq!(parse(&["x", "start"]), Err(missing));
        assert_eq!(parse(&["x", "-v"]).unwrap().action, Action::Version);
    }

    proptest! {
        #[test]
        fn flags_are_read_however_they_are_spelled(
            values in proptest::collection::vec("[a-z/=-]{1,6}", 4),
            spelling in proptest::collection::vec(0_usize..3, 4),
            debug: bool,
        ) {
            let names = ["namespace", "id", "address", "bundle"];
            let mut words = vec!["/bin/shim".to_owned()];
            for ((name, value), spelling) in names.iter().zip(&values).zip(spelling) {
                match spelling {
                    0 => words.push(format!("-{name}={value}")),
                    1 => words.push(format!("--{name}={value}")),
                    _ => words.extend([format!("-{name}"), value.clone()]),
                }
            }
            words.extend(debug.then(|| "-debug".to_owned()));
            words.push("delete".to_owned());
            let read = Args::parse(words.into_iter().map(OsString::from)).unwrap();
            prop_assert_eq!([read.namespace, read.id, read.address, read.bundle], values.as_slice());
            prop_assert_eq!((read.debug, read.action), (debug, Action::Delete));
        }

        #[test]
        fn what_is_no_command_line_is_refused(
            words in proptest::collection::vec(
                "(-{0,2}(id|namespace|debug|v|info|x)?=?[a-z]{0,2}|start|delete)",
                0..8,
            ),
            torn: bool,
        ) {
            use std::os::unix::ffi::OsStringExt as _;
            let mut all: Vec<OsString> = words.iter().map(OsString::from).collect();
            all.extend(torn.then(|| OsString::from_vec(vec![b'-', 0xff])));
            if let Ok(args) = Args::parse(all)
                && matches!(args.action, Action::Start | Action::Delete)
            {
                prop_assert!(!args.id.is_empty() && !args.namespace.is_empty());
            }
        }
    }
}
