//! Which hosts speak for a registry name: the registry itself, and what a directory of
//! `hosts.toml` files says about mirrors, certificates and plain http.
//! Document: containerd's docs/hosts.md; Docker's `certs.d` directories are read too.

use std::io;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("parse {path}: {reason}")]
    Parse { path: PathBuf, reason: String },
    #[error("certificate {path}: {reason}")]
    Certificate { path: PathBuf, reason: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Https,
    Http,
    /// TLS first; plain when the other side does not speak it. For hosts that may be insecure.
    HttpsThenHttp,
}

/// One server that may be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    pub scheme: Scheme,
    /// `name` or `name:port`.
    pub authority: String,
    /// What comes before `/<repository>/manifests/…`, usually `/v2`.
    pub path: String,
    pub pull: bool,
    pub resolve: bool,
    pub push: bool,
    /// Asked in place of another name, which is then told in `ns=`.
    pub mirror: bool,
    pub skip_verify: bool,
    pub certificate_authorities: Vec<PathBuf>,
    /// Pairs of certificate and key.
    pub client_certificates: Vec<(PathBuf, PathBuf)>,
    pub headers: Vec<(String, String)>,
}

impl Host {
    pub fn new(scheme: Scheme, authority: &str) -> Self {
        Self {
            scheme,
            authority: authority.to_owned(),
            path: "/v2".to_owned(),
            pull: true,
            resolve: true,
            push: true,
            mirror: false,
            skip_verify: false,
            certificate_authorities: Vec::new(),
            client_certificates: Vec::new(),
            headers: Vec::new(),
        }
    }
}

/// Where to look hosts up.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    pub directory: Option<PathBuf>,
    /// `http` or `https` for every name the directory says nothing about.
    pub default_scheme: Option<Scheme>,
}

impl Hosts {
    /// The servers to ask for `domain`, in order.
    pub fn lookup(&self, domain: &str) -> Result<Vec<Host>, HostsError> {
        let own = self.origin(domain);
        let Some(root) = &self.directory else { return Ok(vec![own]) };
        for name in directory_names(domain) {
            let directory = root.join(&name);
            if !directory.is_dir() {
                continue;
            }
            let file = directory.join("hosts.toml");
            return match std::fs::read_to_string(&file) {
                Ok(text) => parse(&text, &file, own, name == "_default"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Ok(vec![with_certificates(own, &directory)?])
                }
                Err(source) => Err(HostsError::Read { path: file, source }),
            };
        }
        Ok(vec![own])
    }

    fn origin(&self, domain: &str) -> Host {
        // Compat: Docker Hub's registry has another name than its images.
        let authority = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        let scheme = self.default_scheme.unwrap_or(if is_local(domain) {
            Scheme::HttpsThenHttp
        } else {
            Scheme::Https
        });
        Host::new(scheme, authority)
    }
}

/// Loopback names are trusted without TLS.
fn is_local(authority: &str) -> bool {
    let name = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    };
    name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Compat: a colon in a directory name may be written `_port_`.
fn directory_names(domain: &str) -> Vec<String> {
    let mut names = vec![domain.to_owned()];
    if let Some((host, port)) = domain.rsplit_once(':') {
        names.push(format!("{host}_{port}_"));
        names.push(host.to_owned());
    }
    names.push("_default".to_owned());
    names
}

fn parse(text: &str, file: &Path, own: Host, is_default: bool) -> Result<Vec<Host>, HostsError> {
    let wrong = |reason: String| HostsError::Parse { path: file.to_owned(), reason };
    let table: Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let base = file.parent().unwrap_or(Path::new("/"));
    let mut hosts = Vec::new();
    if let Some(entries) = table.get("host") {
        let entries = entries.as_table().ok_or_else(|| wrong("host must be a table".to_owned()))?;
        for (address, settings) in entries {
            let settings = settings
                .as_table()
                .ok_or_else(|| wrong(format!("host.{address:?} must be a table")))?;
            let mut host = address_of(address, settings).map_err(wrong)?;
            host.mirror = host.authority != own.authority;
            apply(&mut host, settings, base).map_err(wrong)?;
            hosts.push(host);
        }
    }
    // The server of `_default` would be one for every name; its settings still count.
    let mut server = match table.get("server").and_then(Value::as_str) {
        Some(address) if !is_default => address_of(address, &table).map_err(wrong)?,
        _ => own,
    };
    apply(&mut server, &table, base).map_err(wrong)?;
    hosts.push(server);
    Ok(hosts)
}

fn address_of(address: &str, settings: &Table) -> Result<Host, String> {
    let (scheme, rest) = match address.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        Some((other, _)) => return Err(format!("unknown scheme {other} in {address:?}")),
        None if is_local(address) => (Scheme::HttpsThenHttp, address),
        None => (Scheme::Https, address),
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, path.trim_matches('/')),
        None => (rest, ""),
    };
    if authority.is_empty() {
        return Err(format!("no host in {address:?}"));
    }
    let mut host = Host::new(scheme, authority);
    let as_is = settings.get("override_path").and_then(Value::as_bool).unwrap_or(false);
    host.path = match (path, as_is) {
        ("", true) => String::new(),
        ("", false) => "/v2".to_owned(),
        (path, true) => format!("/{path}"),
        (path, false) if path == "v2" || path.ends_with("/v2") => format!("/{path}"),
        (path, false) => format!("/{path}/v2"),
    };
    Ok(host)
}

fn apply(host: &mut Host, settings: &Table, base: &Path) -> Result<(), String> {
    if let Some(list) = settings.get("capabilities") {
        let list = strings(list).ok_or("capabilities must be a list of strings")?;
        host.pull = list.iter().any(|c| c == "pull");
        host.resolve = list.iter().any(|c| c == "resolve");
        host.push = list.iter().any(|c| c == "push");
    }
    if let Some(skip) = settings.get("skip_verify") {
        host.skip_verify = skip.as_bool().ok_or("skip_verify must be true or false")?;
    }
    if let Some(list) = settings.get("ca") {
        let list = strings(list).ok_or("ca must be a file or a list of files")?;
        host.certificate_authorities = list.iter().map(|file| base.join(file)).collect();
    }
    if let Some(client) = settings.get("client") {
        host.client_certificates = client_pairs(client, base)?;
    }
    if let Some(headers) = settings.get("header") {
        for (name, value) in headers.as_table().ok_or("header must be a table")? {
            let values = strings(value).ok_or("header values must be strings")?;
            host.headers.extend(values.into_iter().map(|value| (name.clone(), value)));
        }
    }
    Ok(())
}

/// One file (certificate and key together), or a list of files or of pairs.
fn client_pairs(value: &Value, base: &Path) -> Result<Vec<(PathBuf, PathBuf)>, String> {
    let pair = |certificate: &str, key: &str| {
        (base.join(certificate), base.join(if key.is_empty() { certificate } else { key }))
    };
    match value {
        Value::String(file) => Ok(vec![pair(file, "")]),
        Value::Array(list) => list
            .iter()
            .map(|item| match item {
                Value::String(file) => Ok(pair(file, "")),
                Value::Array(two) => match two.as_slice() {
                    [Value::String(certificate), Value::String(key)] => Ok(pair(certificate, key)),
                    _ => Err("client must hold pairs of certificate and key".to_owned()),
                },
                _ => Err("client must hold files".to_owned()),
            })
            .collect(),
        _ => Err("client must be a file or a list".to_owned()),
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(list) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Docker's directories: `*.crt` are authorities, `x.cert` with `x.key` a client's pair.
fn with_certificates(mut host: Host, directory: &Path) -> Result<Host, HostsError> {
    let read = |source| HostsError::Read { path: directory.to_owned(), source };
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .map_err(read)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(read)?;
    files.sort();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => host.certificate_authorities.push(file),
            Some("cert") => {
                let key = file.with_extension("key");
                if !key.exists() {
                    return Err(HostsError::Certificate {
                        path: file,
                        reason: "missing key for client certificate".to_owned(),
                    });
                }
                host.client_certificates.push((file, key));
            }
            _ => {}
        }
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(directory: &Path, domain: &str) -> Result<Vec<Host>, HostsError> {
        Hosts { directory: Some(directory.to_owned()), default_scheme: None }.lookup(domain)
    }

    #[test]
    fn the_origin_is_asked_when_nothing_is_configured() {
        let hosts = Hosts::default();
        let one = |domain: &str| hosts.lookup(domain).unwrap().remove(0);
        assert_eq!(one("docker.io").authority, "registry-1.docker.io");
        assert_eq!(one("docker.io").scheme, Scheme::Https);
        assert_eq!(one("localhost:5000").scheme, Scheme::HttpsThenHttp);
        assert_eq!(one("127.1.2.3").scheme, Scheme::HttpsThenHttp);
        assert_eq!(one("[::1]:5000").scheme, Scheme::HttpsThenHttp);
        assert_eq!(one("localhost.example.com").scheme, Scheme::Https);
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_server_last() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("docker.io")).unwrap();
        std::fs::write(
            dir.path().join("docker.io/hosts.toml"),
            r#"
server = "https://registry-1.docker.io"
[host."http://z.example:5000"]
capabilities = ["pull"]
[host."https://a.example/prefix"]
ca = "ca.pem"
skip_verify = true
client = [["c.pem", "k.pem"]]
[host."https://a.example/prefix".header]
x-key = "1"
[host."https://b.example/over"]
override_path = true
"#,
        )
        .unwrap();
        let hosts = lookup(dir.path(), "docker.io").unwrap();
        let names: Vec<&str> = hosts.iter().map(|host| host.authority.as_str()).collect();
        assert_eq!(names, ["z.example:5000", "a.example", "b.example", "registry-1.docker.io"]);
        assert_eq!((hosts[0].scheme, hosts[0].pull, hosts[0].resolve), (Scheme::Http, true, false));
        assert_eq!((hosts[1].path.as_str(), hosts[1].skip_verify), ("/prefix/v2", true));
        assert_eq!(hosts[1].headers, [("x-key".to_owned(), "1".to_owned())]);
        assert_eq!(hosts[1].certificate_authorities, [dir.path().join("docker.io/ca.pem")]);
        assert_eq!(hosts[2].path, "/over");
        assert!(hosts[2].mirror && !hosts[3].mirror);
    }

    #[test]
    fn a_port_may_be_spelled_with_underscores_and_default_serves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("r.example_5000_", "[host.\"http://r.example:5000\"]\n"),
            ("_default", "skip_verify = true\n"),
        ] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("hosts.toml"), text).unwrap();
        }
        assert_eq!(lookup(dir.path(), "r.example:5000").unwrap()[0].scheme, Scheme::Http);
        let other = lookup(dir.path(), "other.example").unwrap();
        assert_eq!((other.len(), other[0].authority.as_str()), (1, "other.example"));
        assert!(other[0].skip_verify);
    }

    #[test]
    fn certificates_beside_each_other_are_found_as_docker_does() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("r.example");
        std::fs::create_dir(&own).unwrap();
        for file in ["ca.crt", "client.cert"] {
            std::fs::write(own.join(file), "").unwrap();
        }
        assert!(matches!(lookup(dir.path(), "r.example"), Err(HostsError::Certificate { .. })));
        std::fs::write(own.join("client.key"), "").unwrap();
        let host = lookup(dir.path(), "r.example").unwrap().remove(0);
        assert_eq!(host.certificate_authorities, [own.join("ca.crt")]);
        assert_eq!(host.client_certificates, [(own.join("client.cert"), own.join("client.key"))]);
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("r.example")).unwrap();
        let file = dir.path().join("r.example/hosts.toml");
        for text in ["server = [", "[host]\nx = 1\n", "[host.\"ftp://x\"]\n"] {
            std::fs::write(&file, text).unwrap();
            let error = lookup(dir.path(), "r.example").unwrap_err().to_string();
            assert!(error.starts_with(&format!("parse {}", file.display())), "{error}");
        }
    }

    const FILE: &str = r#"server = "https://r.example/v2"
ca = "ca.pem"
skip_verify = false
[host."http://mirror:5000"]
capabilities = ["pull", "resolve"]
client = [["a.cert", "a.key"], "b.pem"]
override_path = true
[host."http://mirror:5000".header]
x = ["1", "2"]
"#;
    const WORDS: &[&str] = &["", "=", "[", "]", "\"", "\n", "1", "true", "://", "/", "{}", "é"];

    proptest! {
        #[test]
        fn broken_files_are_errors_or_hosts(
            edits in proptest::collection::vec((0..FILE.len(), 0_usize..10, 0..WORDS.len()), 0..6),
            is_default: bool,
        ) {
            let mut text = FILE.to_owned();
            for (at, cut, word) in edits {
                let at = (0..=at.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap();
                let end = (at + cut..).find(|end| *end >= text.len() || text.is_char_boundary(*end));
                text.replace_range(at..end.unwrap().min(text.len()), WORDS[word]);
            }
            let own = Host::new(Scheme::Https, "own.example");
            let Ok(hosts) = parse(&text, Path::new("/c/hosts.toml"), own, is_default) else { return Ok(()) };
            prop_assert!(!hosts.is_empty());
            for host in hosts {
                prop_assert!(!host.authority.is_empty() && !host.authority.contains('/'));
                prop_assert!(host.path.is_empty() || host.path.starts_with('/'));
            }
        }

        #[test]
        fn a_name_never_leaves_the_directory(domain in "[a-z0-9.:\\[\\]-]{1,20}") {
            let Ok(reference) = oci_image::Reference::parse(&format!("{domain}/x")) else { return Ok(()) };
            for name in directory_names(reference.domain()) {
                let path = Path::new("/certs.d").join(&name);
                prop_assert_eq!(path.components().count(), 3, "{}", name);
                prop_assert!(!name.starts_with('.') && !name.contains('/'));
            }
        }
    }
}
