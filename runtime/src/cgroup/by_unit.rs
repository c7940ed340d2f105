//! A cgroup that systemd makes: the same files, and a unit that has to be asked first.

use std::borrow::Cow;

use super::systemd::{self, Started, Unit};
use super::{Cgroup, Error, Layout, Rights, Wish, file};
use crate::spec::oci::LinuxResources;

impl Cgroup {
    /// As a record has it.
    pub(crate) fn of_unit(self, unit: Option<Unit>) -> Self {
        Self { unit, ..self }
    }

    pub(super) fn planned_unit(wish: Wish<'_>) -> Result<Self, Error> {
        let layout = Layout::read()?;
        if wish.user && !layout.is_v2() {
            return Err(Error::SystemdOfUserOnV1);
        }
        let unit = Unit::new(wish.path, wish.id, wish.annotations, wish.user)?;
        let paths = layout.paths(&unit.place()?)?;
        let rights = if wish.user { Rights::NoDevices } else { Rights::All };
        Ok(Self { paths, layout: Some(layout), unit: Some(unit), rights, denied: None })
    }

    /// The unit is around the process, then what systemd does not care for.
    pub(super) fn take_by_unit(
        &mut self,
        pid: i32,
        resources: &LinuxResources,
    ) -> Result<(), Error> {
        let unified = self.v2_directory().is_some();
        if let Some(unit) = &self.unit {
            match unit.start(pid, unified, resources) {
                Ok(()) => {}
                Err(Started::Perhaps(error)) => return Err(error),
                Err(Started::Never(error)) => {
                    // One of that name is somebody else's.
                    self.unit = None;
                    self.paths.clear();
                    return Err(error);
                }
            }
        }
        self.make_directories_beside()?;
        if unified {
            return Ok(());
        }
        let own = self.paths.iter().filter(|(controller, _)| *controller != "name=systemd");
        let directories: std::collections::BTreeSet<_> = own.map(|(_, path)| path).collect();
        let pid = pid.to_string();
        directories.into_iter().try_for_each(|path| file::write(path, "cgroup.procs", &pid))
    }

    fn make_directories_beside(&mut self) -> Result<(), Error> {
        let systemds = self.paths.remove("name=systemd");
        let made = self.make_directories();
        self.paths.extend(systemds.map(|path| ("name=systemd".to_owned(), path)));
        made
    }

    /// With the container's processes at rest: systemd sets devices by forbidding all first.
    pub(super) fn update_unit(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(unit) = &self.unit else { return Ok(()) };
        // On cgroup2 nothing of the rules is touched.
        let unified = self.v2_directory().is_some();
        let freezes = !unified && !self.is_frozen().unwrap_or(true);
        if freezes {
            self.freeze(true)?;
        }
        let set = unit.set(unified, resources, None);
        if freezes {
            self.freeze(false)?;
        }
        set
    }

    /// Takes a further process in; its user may not be allowed to move it there, but systemd is. Of the
    /// older hierarchies it would care for some, and the process be left outside the others.
    pub(crate) fn join_or_attach(&mut self, pid: i32) -> Result<(), Error> {
        let Err(error) = self.join(pid) else { return Ok(()) };
        match (&self.unit, self.v2_directory()) {
            (Some(unit), Some(place)) if super::rights::is_denied(&error) => {
                unit.attach(pid, place)
            }
            _ => Err(error),
        }
    }

    pub(super) fn as_systemd_counts<'a>(
        &self,
        resources: &'a LinuxResources,
    ) -> Cow<'a, LinuxResources> {
        match self.unit {
            Some(_) => Cow::Owned(systemd::properties::rounded(resources)),
            None => Cow::Borrowed(resources),
        }
    }
}
