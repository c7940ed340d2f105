//! `insecure-registries` and `registry-mirrors` as the hosts directory that containerd reads.

use std::path::Path;

use super::ImageError;

/// Writes `<directory>/<host>/hosts.toml` files anew; the directory's path, or empty where there are none.
pub(crate) fn render(
    directory: &Path,
    insecure: &[String],
    mirrors: &[String],
) -> Result<String, ImageError> {
    let failed = |source| ImageError::Hosts { path: directory.to_owned(), source };
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut files: Vec<(String, String)> = Vec::new();
    if !mirrors.is_empty() {
        files.push(("docker.io".to_owned(), mirror_file(mirrors, insecure)));
    }
    // Networks (CIDR) cannot be written as hosts; loopback is plain HTTP for containerd anyway.
    for host in insecure.iter().filter(|host| !host.contains('/')) {
        files.push((host.clone(), insecure_file(host)));
    }
    if files.is_empty() {
        return Ok(String::new());
    }
    for (host, text) in files {
        let place = directory.join(host);
        std::fs::create_dir_all(&place).map_err(failed)?;
        std::fs::write(place.join("hosts.toml"), text).map_err(failed)?;
    }
    Ok(directory.to_string_lossy().into_owned())
}

fn mirror_file(mirrors: &[String], insecure: &[String]) -> String {
    let mut text = "server = \"https://registry-1.docker.io\"\n".to_owned();
    for mirror in mirrors {
        let url = mirror.trim_end_matches('/');
        let host = url.split("://").last().unwrap_or(url);
        text += &format!("\n[host.{url:?}]\n  capabilities = [\"pull\", \"resolve\"]\n");
        if insecure.iter().any(|known| known == host) {
            text += "  skip_verify = true\n";
        }
    }
    text
}

/// TLS without verification first, then plain HTTP, as dockerd.
fn insecure_file(host: &str) -> String {
    format!(
        "server = \"https://{host}\"\n\n[host.\"https://{host}\"]\n  capabilities = [\"pull\", \"resolve\", \"push\"]\n  skip_verify = true\n\n[host.\"http://{host}\"]\n  capabilities = [\"pull\", \"resolve\", \"push\"]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_become_files_and_none_is_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("hosts");
        assert_eq!(render(&place, &[], &[]).unwrap(), "");
        let insecure = ["reg.local:5000".to_owned(), "10.0.0.0/8".to_owned()];
        render(&place, &insecure, &["http://127.0.0.1:5001/".to_owned()]).unwrap();
        let text = std::fs::read_to_string(place.join("docker.io/hosts.toml")).unwrap();
        assert!(text.contains("[host.\"http://127.0.0.1:5001\"]"), "{text}");
        let text = std::fs::read_to_string(place.join("reg.local:5000/hosts.toml")).unwrap();
        assert!(text.contains("skip_verify = true"), "{text}");
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 2);
    }
}
