//! A small registry: one image of one layer, over plain HTTP on loopback, with a password if wanted.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An image, as a registry serves it and as an archive carries it.
pub(crate) struct Image {
    config: Vec<u8>,
    layer: Vec<u8>,
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Image {
    /// busybox under some of its names, and a file that says so.
    pub(crate) fn busybox() -> Self {
        let mut layer = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: &str| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1_700_000_000);
            header.set_size(data.len() as u64);
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            layer.append_data(&mut header, path, data).unwrap();
        };
        for directory in ["bin", "proc", "dev", "sys", "run", "tmp"] {
            add(directory, tar::EntryType::Directory, 0o755, &[], "");
        }
        let program = std::fs::read(integration_tests::parts::busybox()).unwrap();
        add("bin/busybox", tar::EntryType::Regular, 0o755, &program, "");
        for applet in ["sh", "echo", "sleep", "cat", "true"] {
            add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, &[], "busybox");
        }
        add("marker", tar::EntryType::Regular, 0o644, b"from the image\n", "");
        let layer = layer.into_inner().unwrap();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["cat", "/marker"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        Self { config: config.to_string().into_bytes(), layer }
    }

    pub(crate) fn manifest(&self) -> Vec<u8> {
        let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "size": bytes.len(), "digest": digest(bytes)});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe(CONFIG, &self.config), "layers": [describe(LAYER, &self.layer)],
        });
        manifest.to_string().into_bytes()
    }

    pub(crate) fn config_digest(&self) -> String {
        digest(&self.config)
    }

    pub(crate) fn layer_digest(&self) -> String {
        digest(&self.layer)
    }

    /// As `docker save` writes it.
    pub(crate) fn archive(&self, name: &str) -> Vec<u8> {
        let index = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
        let mut archive = tar::Builder::new(Vec::new());
        let index = index.to_string().into_bytes();
        for (path, data) in
            [("manifest.json", &index), ("config.json", &self.config), ("layer.tar", &self.layer)]
        {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(data.len() as u64);
            archive.append_data(&mut header, path, data.as_slice()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn find(&self, path: &str) -> Option<(&'static str, Vec<u8>)> {
        let manifest = self.manifest();
        let last = path.rsplit('/').next()?;
        if path.starts_with("/v2/box/manifests/") {
            let known = last == "1" || last == digest(&manifest);
            return known.then_some((MANIFEST, manifest));
        }
        let blob = path.strip_prefix("/v2/box/blobs/")?;
        let blobs = [&self.config, &self.layer];
        let found = blobs.into_iter().find(|bytes| digest(bytes) == blob);
        found.map(|bytes| ("application/octet-stream", bytes.clone()))
    }
}

/// A running registry of `HOST/box:1`; it ends with the test's process.
pub(crate) struct Registry {
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// `authorization` is the header that every request must carry.
    pub(crate) fn start(image: Image, authorization: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (image, shared) = (Arc::new(image), Arc::clone(&asked));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (image, asked) = (Arc::clone(&image), Arc::clone(&shared));
                std::thread::spawn(move || serve(&client, &image, authorization, &asked));
            }
        });
        Self { host, asked }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    client: &TcpStream,
    image: &Image,
    authorization: Option<&str>,
    asked: &Mutex<Vec<String>>,
) {
    let mut reader = BufReader::new(client);
    let mut writer = client;
    loop {
        let mut line = String::new();
        if !reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            return;
        }
        let mut words = line.split_whitespace();
        let (method, path) =
            (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
        let mut allowed = authorization.is_none();
        loop {
            let mut header = String::new();
            if !reader.read_line(&mut header).is_ok_and(|count| count > 2) {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("authorization")
            {
                allowed |= Some(value.trim()) == authorization;
            }
        }
        let path = path.split('?').next().unwrap_or("").to_owned();
        asked.lock().unwrap().push(format!("{method} {path}"));
        let (status, kind, body) = if !allowed {
            let text =
                br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            ("401 Unauthorized", "application/json", text.to_vec())
        } else if path == "/v2/" {
            ("200 OK", "application/json", b"{}".to_vec())
        } else if let Some((kind, body)) = image.find(&path) {
            ("200 OK", kind, body)
        } else {
            let text = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            ("404 Not Found", "application/json", text.to_vec())
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Docker-Content-Digest: {}\r\nWWW-Authenticate: Basic realm=\"test\"\r\n\r\n",
            body.len(),
            digest(&body),
        );
        let body = if method == "HEAD" { Vec::new() } else { body };
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&body)).is_err() {
            return;
        }
    }
}
