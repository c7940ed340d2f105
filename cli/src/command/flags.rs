//! The values of `run`'s and `create`'s options: ports, binds, environment, memory, CPUs.

use std::collections::BTreeMap;

use docker_api::StringMap;
use docker_api::container::{Device, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice};
use docker_api::network::PortBinding;

use crate::error::CliError;
use crate::format::units;

/// Exposed ports, and what they are bound to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ports {
    pub(super) exposed: Vec<String>,
    pub(super) bindings: BTreeMap<String, Vec<(String, String)>>,
}

/// Reads `[[ip:]hostPort:]containerPort[/protocol]`, with ranges.
pub(super) fn ports(specifications: &[String]) -> Result<Ports, CliError> {
    let mut ports = Ports::default();
    for specification in specifications {
        port(specification, &mut ports)?;
    }
    Ok(ports)
}

fn port(specification: &str, ports: &mut Ports) -> Result<(), CliError> {
    let wrong = CliError::Usage;
    let (rest, protocol) = specification.split_once('/').unwrap_or((specification, "tcp"));
    let (rest, container) = match rest.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, rest),
    };
    let (address, host) = match rest {
        None => ("", ""),
        Some(rest) => match rest.rsplit_once(':') {
            // [::1]:80 and 127.0.0.1:80
            Some((address, host)) => (address.trim_matches(['[', ']']), host),
            None => ("", rest),
        },
    };
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err(wrong(format!("invalid IP address: {address}")));
    }
    if container.is_empty() {
        return Err(wrong(format!("no port specified: {specification}<empty>")));
    }
    let (first, last) =
        range(container).ok_or_else(|| wrong(format!("invalid containerPort: {container}")))?;
    let hosts = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| wrong(format!("invalid hostPort: {host}")))?),
    };
    if let Some((low, high)) = hosts
        && high - low != last - first
        && first != last
    {
        return Err(wrong(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        )));
    }
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong(format!("invalid proto: {protocol}")));
    }
    for number in first..=last {
        let key = format!("{number}/{protocol}");
        let host_port = match hosts {
            None => String::new(),
            // One container port and a range of the host's: the daemon picks from it.
            Some((low, high)) if first == last && low != high => format!("{low}-{high}"),
            Some((low, _)) => (low + (number - first)).to_string(),
        };
        if !ports.bindings.contains_key(&key) {
            ports.exposed.push(key.clone());
        }
        ports.bindings.entry(key).or_default().push((address.to_owned(), host_port));
    }
    Ok(())
}

/// Reads `port[-port][/protocol]`. Compat: which protocols there are is the daemon's to say.
pub(super) fn exposed(text: &str) -> Result<Vec<String>, CliError> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let Some((first, last)) = range(numbers) else {
        let wrong = numbers.split('-').find(|number| number.parse::<u16>().is_err());
        let why = match wrong {
            None => format!("Invalid range specified for the Port: {numbers}"),
            Some(number) => unsigned_error(number),
        };
        return Err(CliError::Usage(format!(
            "invalid range format for --expose: {text}, error: {why}"
        )));
    };
    Ok((first..=last).map(|number| format!("{number}/{protocol}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse().ok().filter(|_| !text.starts_with('+'));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

impl Ports {
    /// In the API's form.
    pub(super) fn port_map(&self) -> BTreeMap<String, Option<Vec<PortBinding>>> {
        self.bindings
            .iter()
            .map(|(key, bindings)| {
                let bindings = bindings
                    .iter()
                    .map(|(ip, port)| PortBinding { host_ip: ip.clone(), host_port: port.clone() })
                    .collect();
                (key.clone(), Some(bindings))
            })
            .collect()
    }
}

/// `NAME=value` as it is; `NAME` takes our own value, and is left out where we have none. A
/// variable given before counts no more: Compat: also `-e A=1 -e A` without one of ours.
pub(super) fn environment(given: &[String], files: &[String]) -> Result<Vec<String>, CliError> {
    let mut out = Vec::new();
    for file in files {
        for line in lines_of(file, &text_of(file)?)? {
            if line.contains('=') {
                out.push(line);
            } else if let Ok(value) = std::env::var(&line) {
                out.push(format!("{line}={value}"));
            }
        }
    }
    out.extend(given.iter().cloned());
    Ok(out)
}

/// Labels, those of files first.
pub(super) fn labels(given: &[String], files: &[String]) -> Result<StringMap, CliError> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines_of(file, &text_of(file)?)?);
    }
    all.extend(given.iter().cloned());
    Ok(pairs(&all))
}

fn text_of(file: &str) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|source| CliError::io(format!("open {file}"), source))
}

/// The lines of a file that name something. Compat: "env file" is what it is called, whatever it
/// is of.
fn lines_of(file: &str, text: &str) -> Result<Vec<String>, CliError> {
    let lines = text.lines().map(str::trim_start);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let name = line.split('=').next().unwrap_or_default();
            let wrong =
                |why: &str| Err(CliError::Usage(format!("invalid env file ({file}): {why}")));
            if name.is_empty() {
                return wrong(&format!("no variable name on line '{line}'"));
            }
            if name.contains(char::is_whitespace) {
                return wrong(&format!("variable '{name}' contains whitespaces"));
            }
            Ok(line.to_owned())
        })
        .collect()
}

/// Checks `-e`; the value of a name alone is ours, and stays open where we have none.
pub(super) fn variable(entry: &str) -> Result<String, String> {
    match entry.split_once('=') {
        Some(("", _)) => Err(format!("invalid environment variable: {entry}")),
        None if entry.is_empty() => Err(format!("invalid environment variable: {entry}")),
        Some(_) => Ok(entry.to_owned()),
        None => Ok(match std::env::var(entry) {
            Ok(value) => format!("{entry}={value}"),
            Err(_) => entry.to_owned(),
        }),
    }
}

/// Checks `-l`.
pub(super) fn label(entry: &str) -> Result<String, String> {
    match entry.split('=').next() {
        None | Some("") => Err(format!("invalid label '{entry}': empty name")),
        Some(_) => Ok(entry.to_owned()),
    }
}

/// Checks `-a`.
pub(super) fn stream(name: &str) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    if matches!(name.as_str(), "stdin" | "stdout" | "stderr") {
        return Ok(name);
    }
    Err("valid streams are STDIN, STDOUT and STDERR".to_owned())
}

/// Checks `--dns`.
pub(super) fn address(text: &str) -> Result<String, String> {
    match text.trim().parse::<std::net::IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// Checks `--add-host`.
pub(super) fn extra_host(text: &str) -> Result<String, String> {
    let wrong = || format!("bad format for add-host: {text:?}");
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{address}"))
}

/// Checks a filter.
pub(super) fn filter(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('=') {
        return Ok(text.to_owned());
    }
    Err("bad format of filter (expected name=value)".to_owned())
}

/// A whole number, refused in Go's words.
pub(super) fn integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

/// `name=value` pairs; a name alone has an empty value.
pub(super) fn pairs(given: &[String]) -> BTreeMap<String, String> {
    given
        .iter()
        .map(|entry| {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// Bytes.
pub(super) fn memory(text: &str) -> Result<i64, String> {
    units::parse_bytes(text).ok_or_else(|| format!("invalid size: '{text}'"))
}

/// Bytes, or -1 for without limit.
pub(super) fn swap(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { memory(text) }
}

/// CPUs as billionths.
pub(super) fn cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(fraction)).ok_or_else(wrong)
}

/// `host[:container[:permissions]]`.
pub(super) fn device(text: &str) -> Result<Device, CliError> {
    if text.is_empty() {
        return Err(CliError::Usage("bad format for path: ".into()));
    }
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default().to_owned();
    let second = parts.next();
    let third = parts.next();
    let is_mode = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    if let Some(mode) = third.filter(|mode| !is_mode(mode)) {
        return Err(CliError::Usage(format!("bad mode specified: {mode}")));
    }
    let (container, permissions) = match (second, third) {
        (Some(mode), None) if is_mode(mode) => (host.clone(), mode.to_owned()),
        (Some(container), mode) => (container.to_owned(), mode.unwrap_or("rwm").to_owned()),
        (None, _) => (host.clone(), "rwm".to_owned()),
    };
    Ok(Device { path_on_host: host, path_in_container: container, cgroup_permissions: permissions })
}

/// Checks `-v`.
pub(super) fn volume(text: &str) -> Result<(), CliError> {
    let wrong = |why: &str| Err(CliError::Usage(format!("invalid spec: {text}: {why}")));
    let parts: Vec<&str> = text.split(':').collect();
    if text.is_empty() {
        return Err(CliError::Usage("invalid empty volume spec".into()));
    }
    if parts.len() > 3 {
        return wrong("too many colons");
    }
    if parts.len() > 1 && parts.iter().any(|part| part.is_empty()) {
        return wrong("empty section between colons");
    }
    Ok(())
}

/// Checks `--sysctl`: what belongs to a namespace of the container's.
pub(super) fn sysctl(text: &str) -> Result<String, String> {
    const SHARED_MEMORY: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    match text.split_once('=') {
        Some((name, _))
            if SHARED_MEMORY.contains(&name)
                || name.starts_with("net.")
                || name.starts_with("fs.mqueue.") =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!("sysctl '{text}' is not allowed")),
    }
}

/// Checks `--link`.
pub(super) fn link(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split(':').collect();
    if text.is_empty() || parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
        return Err(format!("bad format for links: {text}"));
    }
    Ok(text.to_owned())
}

pub(super) fn is_mac_address(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let byte = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    parts.len() == 6 && parts.iter().all(byte)
}

/// Checks `--device-cgroup-rule`: `TYPE MAJOR:MINOR PERMISSIONS`.
pub(super) fn device_rule(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split(' ').collect();
    let number = |text: &str| {
        text == "*" || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match words[..] {
        ["a" | "b" | "c", device, permissions]
            if device
                .split_once(':')
                .is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&permissions.len())
                && permissions.chars().all(|letter| "rwm".contains(letter)) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!("invalid device cgroup format '{text}'")),
    }
}

/// `device:value`, for the limits of one device.
fn device_limit(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text
        .split_once(':')
        .filter(|(path, _)| !path.is_empty())
        .ok_or(format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

/// Checks `--blkio-weight-device`.
pub(super) fn device_weight(text: &str) -> Result<WeightDevice, String> {
    let (path, weight) = device_limit(text)?;
    match weight.parse() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => {
            Ok(WeightDevice { path: path.to_owned(), weight })
        }
        _ => Err(format!("invalid weight for device: {text}")),
    }
}

/// Checks `--device-read-bps` and `--device-write-bps`.
pub(super) fn device_bytes(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = device_limit(text)?;
    let rate = units::parse_bytes(rate).and_then(|rate| u64::try_from(rate).ok()).ok_or(format!(
        "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
    ))?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// Checks `--device-read-iops` and `--device-write-iops`.
pub(super) fn device_operations(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = device_limit(text)?;
    let rate = rate.parse().map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer"
        )
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// Checks `--blkio-weight`.
pub(super) fn weight(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| unsigned_error(text))
}

/// What Go says of a number that is none, or too large.
pub(super) fn unsigned_error(text: &str) -> String {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let why = if digits { "value out of range" } else { "invalid syntax" };
    format!("strconv.ParseUint: parsing {text:?}: {why}")
}

/// A span of time, in nanoseconds.
pub(super) fn duration(text: &str) -> Result<i64, String> {
    docker_api::time::parse_duration(text).ok_or_else(|| {
        let digits = |letter: char| letter.is_ascii_digit() || letter == '.';
        let after = text.trim_start_matches(['+', '-']);
        let unit = after.trim_start_matches(digits);
        if unit.len() == after.len() {
            format!("time: invalid duration {text:?}")
        } else if unit.is_empty() {
            format!("time: missing unit in duration {text:?}")
        } else {
            let unit = unit.split(digits).next().unwrap_or_default();
            format!("time: unknown unit {unit:?} in duration {text:?}")
        }
    })
}

/// Reads `--restart`.
pub(super) fn restart_policy(text: &str) -> Result<RestartPolicy, CliError> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    let maximum_retry_count = if count.is_empty() {
        0
    } else {
        count.parse().map_err(|_| {
            CliError::Usage(
                "invalid restart policy format: maximum retry count must be an integer".into(),
            )
        })?
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`.
pub(super) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let wrong = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (integer(soft)?, integer(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests;
