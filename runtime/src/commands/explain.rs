//! `explain`: what `run` would do with a bundle, step by step, without doing any of it.

use std::fmt::Write as _;
use std::path::Path;

use super::create::Bundle;
use super::{Globals, Usage, parse, print, program};
use crate::args::{Flag, Order};
use crate::spec::landlock::{self, LandlockPlan, names_of};
use crate::spec::mounts::{MountAction, PlannedMount};
use crate::spec::oci::Hook;
use crate::spec::plan::{Choices, NAMESPACES, Plan, namespace_flag};
use crate::spec::process::{CAPABILITIES, ProcessPlan};

pub(super) const FLAGS: &[Flag] = &[("config", "f", true)];

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let parsed = parse(arguments, FLAGS, Order::Mixed)?;
    let [path] = parsed.words.as_slice() else {
        let text = format!("{}: \"explain\" requires exactly 1 argument(s)", program());
        return Err(Usage(text).into());
    };
    let config = parsed.get("config").map(std::path::absolute).transpose()?;
    let bundle = Bundle::load(Path::new(path), config.as_deref())?;
    let unprivileged = crate::rootless::unprivileged();
    let plan = bundle.plan("ID", Choices { unprivileged, ..Choices::default() })?;
    let places = super::create::planned_cgroup(globals, &bundle, "ID")?;
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        if !value.is_empty() {
            // To a string it cannot fail.
            writeln!(text, "{what:<12} {value}").unwrap_or_default();
        }
    };
    line("root", format!("{}{}", plan.rootfs.display(), read_only(plan.rootfs_readonly)));
    line("namespaces", namespaces(&plan));
    for (controller, place) in places.paths() {
        let controller = if controller.is_empty() { "unified" } else { controller };
        line("cgroup", format!("{controller} {}", place.display()));
    }
    for mount in &plan.mounts {
        line("mount", describe(mount));
    }
    for device in plan.devices.iter().filter(|_| plan.setup_dev) {
        line(
            "device",
            format!("{} {} {}:{}", device.path, device.kind, device.major, device.minor),
        );
    }
    for (kind, hooks) in [
        ("prestart", &plan.hooks.prestart),
        ("createRuntime", &plan.hooks.create_runtime),
        ("createContainer", &plan.hooks.create_container),
    ] {
        hook_lines(kind, hooks, &mut line);
    }
    for (key, value) in &plan.sysctl {
        line("sysctl", format!("{key} = {value}"));
    }
    for (name, device) in &plan.net_devices {
        let new =
            if device.name.is_empty() { String::new() } else { format!(" as {}", device.name) };
        line("network", format!("{name}{new}"));
    }
    line("hostname", plan.hostname.clone());
    line("domainname", plan.domainname.clone());
    line("read-only", plan.readonly_paths.join(" "));
    line("masked", plan.masked_paths.join(" "));
    process_lines(&plan.process, &mut line);
    if let Some(rules) = &plan.process.landlock {
        landlock_lines(rules, &mut line);
    }
    if let Some(filter) = &plan.seccomp {
        line("seccomp", format!("{} instructions", filter.instructions.len()));
    }
    for (kind, hooks) in [
        ("startContainer", &plan.hooks.start_container),
        ("poststart", &plan.hooks.poststart),
        ("poststop", &plan.hooks.poststop),
    ] {
        hook_lines(kind, hooks, &mut line);
    }
    print(&text)?;
    Ok(0)
}

fn read_only(is: bool) -> &'static str {
    if is { ", read-only" } else { "" }
}

fn namespaces(plan: &Plan) -> String {
    let mut words = Vec::new();
    for kind in NAMESPACES {
        let flag = namespace_flag(kind).unwrap_or(0);
        let joined = plan.join.iter().find(|join| u64::try_from(join.flag) == Ok(flag));
        if let Some(join) = joined {
            words.push(format!("{kind}={}", join.path));
        } else if plan.create & flag != 0 || kind == "cgroup" && plan.new_cgroup_namespace {
            words.push(kind.to_owned());
        }
    }
    words.join(" ")
}

fn describe(mount: &PlannedMount) -> String {
    let PlannedMount { destination, kind, source, options, action } = mount;
    let what = match action {
        MountAction::Bind { source, .. } => source.display().to_string(),
        MountAction::Cgroup => "the container's cgroup".to_owned(),
        MountAction::Filesystem => format!("new {kind} ({source})"),
    };
    let data = if options.data.is_empty() { String::new() } else { format!(", {}", options.data) };
    format!("{destination} <- {what}{}{data}", read_only(options.is_read_only()))
}

fn hook_lines(kind: &str, hooks: &[Hook], line: &mut impl FnMut(&str, String)) {
    for hook in hooks {
        line("hook", format!("{kind} {}", hook.path));
    }
}

fn landlock_lines(rules: &LandlockPlan, line: &mut impl FnMut(&str, String)) {
    let denied = [
        names_of(landlock::FILES, rules.handled.files),
        names_of(landlock::PORTS, rules.handled.ports),
        names_of(landlock::SCOPES, rules.handled.scopes),
    ];
    let denied: Vec<_> = denied.into_iter().filter(|names| !names.is_empty()).collect();
    if !denied.is_empty() {
        line("landlock", format!("no {}", denied.join(",")));
    }
    for (path, allowed) in &rules.paths {
        line("landlock", format!("{} below {path}", names_of(landlock::FILES, *allowed)));
    }
    for (port, allowed) in &rules.ports {
        line("landlock", format!("{} of {port}", names_of(landlock::PORTS, *allowed)));
    }
}

fn process_lines(process: &ProcessPlan, line: &mut impl FnMut(&str, String)) {
    let groups: String = process.groups.iter().map(|group| format!(",{group}")).collect();
    line("user", format!("{}:{}{groups}", process.uid, process.gid));
    line("directory", process.cwd.clone());
    for (resource, soft, hard) in &process.rlimits {
        line("rlimit", format!("{resource} {soft} {hard}"));
    }
    if let Some(sets) = process.capabilities {
        let has = |number: usize| sets.bounding & (1 << number) != 0;
        let names = CAPABILITIES.iter().enumerate().filter(|(number, _)| has(*number));
        line("capabilities", names.map(|(_, name)| *name).collect::<Vec<_>>().join(" "));
    }
    if process.no_new_privileges {
        line("privileges", "no new ones".to_owned());
    }
    line("terminal", if process.terminal { "its own".to_owned() } else { String::new() });
    line("exec", process.args.join(" "));
}
