//! Cgroups of a caller who may not be allowed to touch them: an ordinary user without a delegated
//! subtree, or root of a user namespace.

use std::path::Path;

use super::file::errno;
use super::{Cgroup, Error, v1};
use crate::spec::oci::LinuxResources;

/// What a missing right means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Rights {
    #[default]
    All,
    /// Device rules are out of reach.
    NoDevices,
    /// Nothing that a limit does not need has to be within reach.
    Optional,
}

impl Cgroup {
    /// As a user has it. Compat: a place that was named must be to be had.
    pub(crate) fn without_root(self, place_named: bool) -> Self {
        let rights = if place_named { Rights::NoDevices } else { Rights::Optional };
        Self { rights, ..self }
    }

    /// Goes on without `directory` where that may be.
    pub(super) fn allowed(
        &mut self,
        result: Result<(), Error>,
        directory: &Path,
    ) -> Result<(), Error> {
        let Err(error) = result else { return Ok(()) };
        if self.rights != Rights::Optional || !is_denied(&error) {
            return Err(error);
        }
        self.paths.retain(|_, place| place != directory);
        // It may have been made, and be of no use.
        std::fs::remove_dir(directory).ok();
        self.denied.get_or_insert(error.to_string());
        Ok(())
    }

    /// Without any place of its own; limits are then an error.
    pub(super) fn do_without(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(denied) = self.denied.as_ref().filter(|_| self.rights == Rights::Optional) else {
            return Ok(());
        };
        let unified = self.layout.as_ref().is_some_and(super::Layout::is_v2);
        if unified {
            let limits = LinuxResources { devices: Vec::new(), ..resources.clone() };
            if limits != LinuxResources::default() {
                return Err(Error::LimitsWithoutRights(denied.clone()));
            }
            return Ok(());
        }
        v1::apply(&self.paths, resources).map_err(|error| self.explain(error))
    }

    /// A controller that is not there may be one that could not be had.
    pub(super) fn explain(&self, error: Error) -> Error {
        match error {
            Error::NoController(name) if self.denied.is_some() => Error::NotJoined(name),
            error => error,
        }
    }
}

pub(super) fn is_denied(error: &Error) -> bool {
    let number = match error {
        Error::Create { cause, .. } => cause.raw_os_error(),
        error => errno(error),
    };
    matches!(number, Some(libc::EACCES | libc::EPERM | libc::EROFS))
}
