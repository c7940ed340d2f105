//! A registry of one's own: the GET routes of the OCI distribution specification, over plain HTTP on
//! the sandbox's loopback. It serves what it was given and counts what it was asked for.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::image::{architecture, digest};
use crate::sandbox::Sandbox;

/// A running registry; it ends with the sandbox's network.
pub struct Registry {
    /// `127.0.0.1:PORT`, what image names begin with.
    pub host: String,
    served: Arc<Mutex<Served>>,
}

#[derive(Default)]
struct Served {
    /// By path below `/v2/`: media type and bytes.
    things: BTreeMap<String, (String, Vec<u8>)>,
    asked: Vec<String>,
}

impl Registry {
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start(sandbox: &Sandbox) -> Self {
        let listener = sandbox.on_network(|| TcpListener::bind("127.0.0.1:0")).expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let served = Arc::new(Mutex::new(Served::default()));
        let shared = Arc::clone(&served);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let served = Arc::clone(&shared);
                std::thread::spawn(move || answer(&client, &served));
            }
        });
        Self { host, served }
    }

    /// Serves an image of uncompressed layer tars under `NAME:TAG` and gives the manifest's digest.
    ///
    /// # Panics
    /// Never in practice.
    pub fn push(&self, name: &str, tag: &str, config: &Value, layers: &[Vec<u8>]) -> String {
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let layer = "application/vnd.docker.image.rootfs.diff.tar";
        let mut config = config.clone();
        config["rootfs"] = json!({"type": "layers",
            "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()});
        config["os"] = json!("linux");
        config["architecture"] = json!(architecture());
        let config = config.to_string().into_bytes();
        let describe = |media: &str, bytes: &[u8]| json!({"mediaType": media, "size": bytes.len(), "digest": digest(bytes)});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind,
            "config": describe("application/vnd.docker.container.image.v1+json", &config),
            "layers": layers.iter().map(|bytes| describe(layer, bytes)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let id = digest(&manifest);
        let mut served = self.served.lock().expect("no panic holds it");
        for blob in layers.iter().chain([&config]) {
            let path = format!("{name}/blobs/{}", digest(blob));
            served.things.insert(path, ("application/octet-stream".to_owned(), blob.clone()));
        }
        for reference in [tag, &id] {
            let path = format!("{name}/manifests/{reference}");
            served.things.insert(path, (kind.to_owned(), manifest.clone()));
        }
        id
    }

    /// Takes a blob or a manifest away.
    ///
    /// # Panics
    /// Never in practice.
    pub fn forget(&self, path: &str) {
        self.served.lock().expect("no panic holds it").things.remove(path);
    }

    /// Puts other bytes in the place of something.
    ///
    /// # Panics
    /// When it is not there.
    pub fn corrupt(&self, path: &str) {
        let mut served = self.served.lock().expect("no panic holds it");
        let thing = served.things.get_mut(path).unwrap_or_else(|| panic!("{path} is not served"));
        thing.1[0] ^= 0xff;
    }

    /// The paths that were asked for, with GET or HEAD before them.
    ///
    /// # Panics
    /// Never in practice.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.served.lock().expect("no panic holds it").asked.clone()
    }
}

fn answer(client: &TcpStream, served: &Mutex<Served>) {
    let mut lines = BufReader::new(client).lines();
    loop {
        let Some(Ok(request)) = lines.next() else { return };
        loop {
            match lines.next() {
                Some(Ok(line)) if line.is_empty() => break,
                Some(Ok(_)) => {}
                _ => return,
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = path.split('?').next().unwrap_or_default();
        let name = path.strip_prefix("/v2/").unwrap_or(path);
        let found = {
            let mut served = served.lock().expect("no panic holds it");
            served.asked.push(format!("{method} {name}"));
            served.things.get(name).cloned()
        };
        let (status, kind, body) = match found {
            Some((kind, body)) => ("200 OK", kind, body),
            None if name.is_empty() => ("200 OK", "application/json".to_owned(), b"{}".to_vec()),
            None => {
                let code =
                    if name.contains("/manifests/") { "MANIFEST_UNKNOWN" } else { "BLOB_UNKNOWN" };
                let body = json!({"errors": [{"code": code, "message": "unknown"}]});
                ("404 Not Found", "application/json".to_owned(), body.to_string().into_bytes())
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Docker-Distribution-Api-Version: registry/2.0\r\nDocker-Content-Digest: {}\r\n\r\n",
            body.len(),
            digest(&body)
        );
        let mut client = client;
        let body = if method == "HEAD" { &[][..] } else { &body };
        if client.write_all(head.as_bytes()).and_then(|()| client.write_all(body)).is_err() {
            return;
        }
    }
}
