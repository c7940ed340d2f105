//! Images that say whether they are whole: many small files, and a command that sums them up.

use integration_tests::image;
use serde_json::json;
use sha2::{Digest, Sha256};

const FILES: usize = 30;

fn content(mark: u64, number: usize) -> String {
    format!("{mark} {number}\n").repeat(100 + number * 40)
}

/// What `sha256sum` says of all files.
pub(crate) fn sum(mark: u64) -> String {
    let mut hash = Sha256::new();
    (0..FILES).for_each(|number| hash.update(content(mark, number)));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A docker-archive: busybox, and a layer of its own.
pub(crate) fn archive(name: &str, mark: u64) -> Vec<u8> {
    let files: Vec<(String, String)> =
        (0..FILES).map(|number| (format!("files/{number:02}"), content(mark, number))).collect();
    let mut entries = vec![("files/", "")];
    entries.extend(files.iter().map(|(path, content)| (path.as_str(), content.as_str())));
    let config = json!({"config": {
        "Env": ["PATH=/bin"], "Cmd": ["sh", "-c", "cat /files/* | sha256sum"],
    }});
    image::archive(name, &config, &[image::busybox_layer(), image::layer(&entries)])
}
