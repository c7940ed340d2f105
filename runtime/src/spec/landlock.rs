//! Landlock rules by annotation, as JSON. The shape is the one proposed for the specification as
//! `process.landlock` (runtime-spec pull request 1241); what it has not settled, ports and scopes, is named
//! as by landlockconfig, the format of the kernel's maintainers.
//!
//! ```text
//! {"ruleset": {"handledAccessFS": ["write_file", …], "handledAccessNet": ["bind_tcp"], "scoped": ["signal"]},
//!  "rules": {"pathBeneath": [{"allowedAccess": ["write_file"], "paths": ["/tmp"]}],
//!            "netPort": [{"allowedAccess": ["bind_tcp"], "port": [80]}]},
//!  "disableBestEffort": true}
//! ```
//! Unlike there, what the kernel does not have is an error unless `disableBestEffort` is false: whoever
//! asks for a fence is told when there is none.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use crate::sys::landlock::{self, Handled};
use crate::sys::{errno_of, errno_text};

pub(crate) const ANNOTATION: &str = "docker-rs.landlock";

/// By its bit: the name of a right, and the first version of the kernel's interface that has it.
type Rights = [(&'static str, u32)];

pub(crate) const FILES: &Rights = &[
    ("execute", 1),
    ("write_file", 1),
    ("read_file", 1),
    ("read_dir", 1),
    ("remove_dir", 1),
    ("remove_file", 1),
    ("make_char", 1),
    ("make_dir", 1),
    ("make_reg", 1),
    ("make_sock", 1),
    ("make_fifo", 1),
    ("make_block", 1),
    ("make_sym", 1),
    ("refer", 2),
    ("truncate", 3),
    ("ioctl_dev", 5),
];
pub(crate) const PORTS: &Rights = &[("bind_tcp", 4), ("connect_tcp", 4)];
pub(crate) const SCOPES: &Rights = &[("abstract_unix_socket", 6), ("signal", 6)];

/// `execute`, `write_file`, `read_file`, `truncate`, `ioctl_dev`: the others are for directories.
const OF_A_FILE: u64 = 0b1100_0000_0000_0111;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LandlockError {
    #[error("annotation {ANNOTATION}: {0}")]
    Json(serde_json::Error),
    #[error("annotation {ANNOTATION}: unknown access {name:?} in {field}")]
    Unknown { field: &'static str, name: String },
    #[error("annotation {ANNOTATION}: {name} is allowed, but not handled")]
    NotHandled { name: String },
    #[error("annotation {ANNOTATION}: the ruleset handles nothing")]
    HandlesNothing,
    #[error("annotation {ANNOTATION}: a rule of {0} allows nothing")]
    AllowsNothing(&'static str),
    #[error("annotation {ANNOTATION}: path {0:?} is not absolute")]
    Relative(String),
    #[error("annotation {ANNOTATION}: no Landlock in this kernel: {}", errno_text(errno_of(.0)))]
    Absent(io::Error),
    #[error("annotation {ANNOTATION}: {name} needs Landlock ABI {needs}, this kernel has {has}")]
    Newer { name: &'static str, needs: u32, has: u32 },
}

/// What the process gives up before its program runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LandlockPlan {
    pub(crate) handled: Handled,
    /// Paths in the container.
    pub(crate) paths: Vec<(String, u64)>,
    pub(crate) ports: Vec<(u16, u64)>,
    /// What was asked for and the kernel lacks.
    pub(crate) lacking: Vec<&'static str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    ruleset: Ruleset,
    #[serde(default)]
    rules: Rules,
    disable_best_effort: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ruleset {
    #[serde(rename = "handledAccessFS", default)]
    files: Vec<String>,
    #[serde(rename = "handledAccessNet", default)]
    ports: Vec<String>,
    #[serde(default)]
    scoped: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Rules {
    path_beneath: Vec<PathRule>,
    net_port: Vec<PortRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PathRule {
    allowed_access: Vec<String>,
    paths: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortRule {
    allowed_access: Vec<String>,
    port: Vec<u16>,
}

impl LandlockPlan {
    /// The kernel is asked only where there are rules.
    pub(crate) fn of(
        annotations: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, LandlockError> {
        let text = annotations.get(ANNOTATION);
        text.map(|text| Self::new(text, landlock::abi())).transpose()
    }

    fn new(text: &str, abi: io::Result<u32>) -> Result<Self, LandlockError> {
        let document: Document =
            serde_json::from_slice(text.as_bytes()).map_err(LandlockError::Json)?;
        let Document { ruleset, rules, disable_best_effort } = document;
        let mut plan = Self {
            handled: Handled {
                files: bits(FILES, "handledAccessFS", &ruleset.files)?,
                ports: bits(PORTS, "handledAccessNet", &ruleset.ports)?,
                scopes: bits(SCOPES, "scoped", &ruleset.scoped)?,
            },
            ..Self::default()
        };
        if !plan.restricts() {
            return Err(LandlockError::HandlesNothing);
        }
        for rule in rules.path_beneath {
            let allowed = allowed(FILES, "pathBeneath", &rule.allowed_access, plan.handled.files)?;
            if let Some(path) = rule.paths.iter().find(|path| !path.starts_with('/')) {
                return Err(LandlockError::Relative(path.clone()));
            }
            plan.paths.extend(rule.paths.into_iter().map(|path| (path, allowed)));
        }
        for rule in rules.net_port {
            let allowed = allowed(PORTS, "netPort", &rule.allowed_access, plan.handled.ports)?;
            plan.ports.extend(rule.port.into_iter().map(|port| (port, allowed)));
        }
        let best_effort = disable_best_effort == Some(false);
        let abi = match abi {
            Err(cause) if !best_effort => return Err(LandlockError::Absent(cause)),
            abi => abi.unwrap_or(0),
        };
        plan.fit(abi);
        match plan.lacking.first() {
            Some(name) if !best_effort => {
                let all = FILES.iter().chain(PORTS).chain(SCOPES);
                let needs = all.filter(|right| right.0 == *name).map(|right| right.1).sum();
                Err(LandlockError::Newer { name, needs, has: abi })
            }
            _ => Ok(plan),
        }
    }

    /// Leaves out what a kernel of this version refuses.
    fn fit(&mut self, abi: u32) {
        let Handled { files, ports, scopes } = &mut self.handled;
        for (rights, handled) in [(FILES, files), (PORTS, ports), (SCOPES, scopes)] {
            for (bit, (name, needs)) in rights.iter().enumerate() {
                if *needs > abi && *handled & 1 << bit != 0 {
                    *handled &= !(1 << bit);
                    self.lacking.push(name);
                }
            }
        }
        let Handled { files, ports, .. } = self.handled;
        self.paths.iter_mut().for_each(|(_, allowed)| *allowed &= files);
        self.paths.retain(|(_, allowed)| *allowed != 0);
        self.ports.iter_mut().for_each(|(_, allowed)| *allowed &= ports);
        self.ports.retain(|(_, allowed)| *allowed != 0);
    }

    /// Whether anything is left to be done.
    pub(crate) fn restricts(&self) -> bool {
        self.handled != Handled::default()
    }

    /// For the log.
    pub(crate) fn warning(&self) -> Option<String> {
        let names = self.lacking.join(", ");
        (!names.is_empty())
            .then(|| format!("annotation {ANNOTATION}: this kernel does not restrict {names}"))
    }
}

fn bits(rights: &Rights, field: &'static str, names: &[String]) -> Result<u64, LandlockError> {
    names.iter().try_fold(0, |bits, name| {
        let bit = rights.iter().position(|right| right.0 == *name);
        let unknown = || LandlockError::Unknown { field, name: name.clone() };
        Ok(bits | 1 << bit.ok_or_else(unknown)?)
    })
}

fn allowed(
    rights: &Rights,
    field: &'static str,
    names: &[String],
    handled: u64,
) -> Result<u64, LandlockError> {
    let allowed = bits(rights, field, names)?;
    if allowed == 0 {
        return Err(LandlockError::AllowsNothing(field));
    }
    if allowed & !handled != 0 {
        return Err(LandlockError::NotHandled { name: names_of(rights, allowed & !handled) });
    }
    Ok(allowed)
}

pub(crate) fn names_of(rights: &Rights, bits: u64) -> String {
    let names = rights.iter().enumerate().filter(|(bit, _)| bits & 1 << bit != 0);
    names.map(|(_, right)| right.0).collect::<Vec<_>>().join(",")
}

/// What of these rights only a directory can give.
pub(crate) fn of_directories(bits: u64) -> String {
    names_of(FILES, bits & !OF_A_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::{assert_sentence, damaged};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn document() -> Value {
        json!({
            "ruleset": {
                "handledAccessFS": ["execute", "write_file", "truncate"],
                "handledAccessNet": ["bind_tcp"], "scoped": ["signal"],
            },
            "rules": {
                "pathBeneath": [
                    {"allowedAccess": ["execute"], "paths": ["/bin", "/lib"]},
                    {"allowedAccess": ["truncate"], "paths": ["/tmp"]},
                ],
                "netPort": [{"allowedAccess": ["bind_tcp"], "port": [80, 0]}],
            },
        })
    }

    fn plan(document: &Value, abi: u32) -> Result<LandlockPlan, LandlockError> {
        LandlockPlan::new(&document.to_string(), Ok(abi))
    }

    #[test]
    fn rights_are_the_kernels_bits() {
        let plan = plan(&document(), 6).unwrap();
        assert_eq!(plan.handled, Handled { files: 1 | 1 << 1 | 1 << 14, ports: 1, scopes: 2 });
        let paths = [("/bin", 1), ("/lib", 1), ("/tmp", 1 << 14)];
        assert_eq!(plan.paths, paths.map(|(path, allowed)| (path.to_owned(), allowed)));
        assert_eq!(plan.ports, [(80, 1), (0, 1)]);
        assert_eq!(names_of(FILES, 1 << 15 | 1 << 13 | 1 << 12), "make_sym,refer,ioctl_dev");
        assert_eq!(of_directories(u64::MAX >> 48).split(',').count(), 11);
    }

    #[test]
    fn what_an_older_kernel_lacks_is_an_error_or_left_out_and_told() {
        let text = |abi| plan(&document(), abi).unwrap_err().to_string();
        let head = "annotation docker-rs.landlock: ";
        assert_eq!(text(5), format!("{head}signal needs Landlock ABI 6, this kernel has 5"));
        assert_eq!(text(2), format!("{head}truncate needs Landlock ABI 3, this kernel has 2"));
        let mut effort = document();
        effort["disableBestEffort"] = json!(false);
        let old = plan(&effort, 1).unwrap();
        assert_eq!(old.handled, Handled { files: 3, ports: 0, scopes: 0 });
        assert_eq!((old.paths.len(), old.ports.len()), (2, 0));
        let warning = "this kernel does not restrict truncate, bind_tcp, signal";
        assert_eq!(old.warning(), Some(format!("{head}{warning}")));
        let none = || Err(io::Error::from_raw_os_error(libc::ENOSYS));
        let plan = LandlockPlan::new(&effort.to_string(), none()).unwrap();
        assert!(!plan.restricts() && plan.lacking.len() == 5, "{plan:?}");
        let error = LandlockPlan::new(&document().to_string(), none()).unwrap_err().to_string();
        assert_eq!(error, format!("{head}no Landlock in this kernel: function not implemented"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (place, value, wanted) in [
            ("/ruleset/scoped", json!(["sig"]), "unknown access \"sig\" in scoped"),
            (
                "/rules/pathBeneath/0/allowedAccess",
                json!(["read_dir", "refer"]),
                "read_dir,refer is allowed, but not handled",
            ),
            ("/rules/netPort/0/allowedAccess", json!([]), "a rule of netPort allows nothing"),
            ("/rules/pathBeneath/0/paths", json!(["bin"]), "path \"bin\" is not absolute"),
            ("/ruleset", json!({}), "the ruleset handles nothing"),
        ] {
            let mut document = document();
            *document.pointer_mut(place).unwrap() = value;
            let error = plan(&document, 6).unwrap_err().to_string();
            assert_eq!(error, format!("annotation docker-rs.landlock: {wanted}"));
        }
        let mut unknown = document();
        unknown["rules"]["paths"] = json!([]);
        let error = plan(&unknown, 6).unwrap_err().to_string();
        assert!(
            error.starts_with("annotation docker-rs.landlock: unknown field `paths`"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_annotation_is_rules_the_kernel_takes_or_one_sentence(
            bytes in damaged(Just(document())), abi in 0_u32..8, best_effort: bool,
        ) {
            let mut text = String::from_utf8_lossy(&bytes.0).into_owned();
            if best_effort {
                text = text.replacen('{', "{\"disableBestEffort\":false,", 1);
            }
            match LandlockPlan::new(&text, Ok(abi)) {
                Err(error) => assert_sentence(&error.to_string()),
                Ok(plan) => {
                    let Handled { files, ports, scopes } = plan.handled;
                    for (rights, bits) in [(FILES, files), (PORTS, ports), (SCOPES, scopes)] {
                        let known = rights.iter().filter(|right| right.1 <= abi).count();
                        prop_assert!(bits >> known == 0, "{:?} of {}", plan, abi);
                    }
                    prop_assert!(plan.paths.iter().all(|(_, bits)| *bits != 0 && bits & !files == 0));
                    prop_assert!(plan.ports.iter().all(|(_, bits)| *bits != 0 && bits & !ports == 0));
                    prop_assert!(best_effort || plan.lacking.is_empty());
                }
            }
        }
    }
}
