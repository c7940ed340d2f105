//! `linux.intelRdt` for a container that is made, and for `update`.

use anyhow::{anyhow, bail};

use crate::args::Parsed;
use crate::container::Container;
use crate::resctrl::{self, Group, Resctrl};
use crate::spec::oci::IntelRdt;

/// Into the group of its caches, with the share that the specification wants.
pub(super) fn enter(container: &mut Container, wanted: Option<&IntelRdt>) -> anyhow::Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let failed = |what: &'static str| {
        move |error: resctrl::ResctrlError| {
            anyhow!("unable to start container process: {what}: {error}")
        }
    };
    let apply = "unable to apply Intel RDT configuration";
    let resctrl = Resctrl::find().ok_or(resctrl::ResctrlError::Missing).map_err(failed(apply))?;
    let record = &mut container.record;
    let group = resctrl.enter(&record.id, wanted, record.pid).map_err(failed(apply))?;
    let set = group.set();
    record.resctrl = Some(group);
    set.map_err(failed("error setting Intel RDT config for procHooks process"))
}

/// The share of caches and memory bandwidth that is to hold. Compat: runc's sentences.
pub(super) fn changed(container: &Container, parsed: &Parsed) -> anyhow::Result<Option<Group>> {
    let given = |name: &str| parsed.get(name).filter(|value| !value.is_empty());
    let (cache, bandwidth) = (given("l3-cache-schema"), given("mem-bw-schema"));
    if cache.is_none() && bandwidth.is_none() {
        return Ok(None);
    }
    let resctrl = Resctrl::find();
    if cache.is_some() && !resctrl.as_ref().is_some_and(Resctrl::has_cache) {
        bail!("Intel RDT/CAT: l3 cache schema is not enabled");
    }
    if bandwidth.is_some() && !resctrl.as_ref().is_some_and(Resctrl::has_bandwidth) {
        bail!("Intel RDT/MBA: memory bandwidth schema is not enabled");
    }
    let Some(mut group) = container.record.resctrl.clone() else {
        bail!("updating a non-existent Intel RDT configuration is not supported");
    };
    if let Some(schema) = cache {
        schema.clone_into(&mut group.wanted.l3_cache_schema);
    }
    if let Some(schema) = bandwidth {
        schema.clone_into(&mut group.wanted.mem_bw_schema);
    }
    Ok(Some(group))
}
