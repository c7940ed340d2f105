//! Where a program stands in a trace, and what it has to tell.

use std::fmt::{self, Write as _};
use std::path::Path;

use crate::{Caller, Log, SpanId, now};

/// The annotation of an OCI configuration that holds a [`Place`].
pub const ANNOTATION: &str = "docker-rs.trace";
/// The metadata key of the file, beside [`crate::CALLER_KEY`].
pub const LOG_KEY: &str = "docker-rs-trace-log";

/// Who called, and where spans go. As text: the two, with a space between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub caller: Caller,
    pub log: Log,
}

impl Place {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (caller, path) = text.split_once(' ')?;
        Self::of(caller, path)
    }

    /// From the two parts.
    #[must_use]
    pub fn of(caller: &str, path: &str) -> Option<Self> {
        let (caller, log) = (Caller::parse(caller)?, Log::at(Path::new(path))?);
        Some(Self { caller, log })
    }

    /// The same place as seen by somebody closer, if that is a caller of the same trace.
    #[must_use]
    pub fn called_by(mut self, caller: Option<&str>) -> Self {
        let closer = caller.and_then(Caller::parse);
        if let Some(closer) = closer.filter(|closer| closer.trace == self.caller.trace) {
            self.caller = closer;
        }
        self
    }

    /// What `span` is to tell whom it calls.
    #[must_use]
    pub fn caller_as(&self, span: SpanId) -> Caller {
        Caller { span, ..self.caller }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.caller, self.log.path().display())
    }
}

/// One program's spans until they are written, all at once.
#[derive(Debug)]
pub struct Page {
    program: &'static str,
    place: Place,
    lines: String,
}

impl Page {
    #[must_use]
    pub fn new(program: &'static str, place: Place) -> Self {
        Self { program, place, lines: String::new() }
    }

    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn add(&mut self, name: &str, id: SpanId, parent: SpanId, start: u64, end: u64) {
        let Self { program, lines, .. } = self;
        writeln!(lines, "{program} {id} {parent} {start} {end} {name}").ok();
    }

    /// A span without any below it, that ends now.
    pub fn leaf(&mut self, name: &str, parent: SpanId, start: u64) {
        self.add(name, SpanId::fresh(), parent, start, now());
    }

    pub fn write(&mut self) {
        if !self.lines.is_empty() {
            self.place.log.append(&self.lines);
            self.lines.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const PATH: &str = "/run/a b/4bf92f3577b34da6a3ce929d0e0e4736.spans";

    #[test]
    fn a_place_survives_an_annotation() {
        let text = format!("{CALLER} {PATH}");
        assert_eq!(Place::parse(&text).unwrap().to_string(), text);
        for bad in [CALLER, PATH, "", "x /etc/shadow", &format!("{CALLER} /etc/shadow")] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_closer_caller_counts_if_it_is_of_the_same_trace() {
        let place = Place::of(CALLER, PATH).unwrap();
        let closer = CALLER.replace("00f067aa0ba902b7", "00f067aa0ba902b8");
        assert_eq!(place.clone().called_by(Some(&closer)).caller.to_string(), closer);
        let foreign = CALLER.replace("4bf9", "4bf8");
        for other in [None, Some("x"), Some(foreign.as_str())] {
            assert_eq!(place.clone().called_by(other), place);
        }
    }

    proptest! {
        #[test]
        fn an_annotation_is_a_place_or_nothing(
            caller in "00-[0-9a-f]{31,32}-[0-9a-f]{16}-0[0-3]", directory in "/?[a-z ./]{0,9}", name in "[0-9a-f]{31,32}",
            ending in "(\\.spans|spans|\\.|)", cut in 0_usize..140,
        ) {
            let text = format!("{caller} {directory}/{name}{ending}");
            let cut = cut.min(text.len());
            for text in [&text[..], &text[..cut], &text[cut..]] {
                if let Some(place) = Place::parse(text) {
                    let path = place.log.path();
                    prop_assert!(path.is_absolute() && path.extension().is_some_and(|end| end == "spans"));
                    prop_assert_eq!(Place::parse(&place.to_string()).unwrap(), place);
                }
            }
        }
    }
}
