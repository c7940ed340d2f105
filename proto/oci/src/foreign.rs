//! Documents and names as broken as a registry, an archive or a client can send them.

use std::io::Write;

use proptest::prelude::*;

use crate::Reference;
use crate::digest::{Digest, HashingWriter};
use crate::manifest::{Document, ImageConfig, media};
use crate::platform::Platform;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"D","size":2,"data":"e30="},
"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"D","size":1,"urls":["u"],
"annotations":{"k":"v"}}],"annotations":null}"#;
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
"digest":"D","size":9,"platform":{"architecture":"arm","os":"linux","variant":"v7","os.version":"1",
"os.features":["f"]}}],"annotations":{"a":"b"}}"#;
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","created":"2020-01-01T00:00:00Z","config":
{"User":"u","Env":["A=b"],"Entrypoint":null,"Cmd":["c"],"WorkingDir":"/","Labels":{"l":"1"},
"ExposedPorts":{"80/tcp":{}},"Volumes":{}},"rootfs":{"type":"layers","diff_ids":["D"]},"history":[]}"#;
const WORDS: &[&str] = &[
    "null",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "1e99",
    "18446744073709551616",
    ",",
    "\"",
    "\\ud800",
    "[[[[",
    "\"layers\":[],",
    "\"manifests\":[],",
    "\"schemaVersion\":1,",
];

fn edits() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
    proptest::collection::vec((0_usize..700, 0_usize..12, 0..WORDS.len()), 0..5)
}

fn broken(document: &str, edits: &[(usize, usize, usize)]) -> Vec<u8> {
    let mut bytes = document.replace("\"D\"", &format!("\"{DIGEST}\"")).into_bytes();
    for (at, cut, word) in edits {
        let at = *at % (bytes.len() + 1);
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, WORDS[*word].bytes());
    }
    bytes
}

proptest! {
    #[test]
    fn broken_documents_are_refused_or_mean_what_they_say(edits in edits(), served in 0_usize..4) {
        let served = ["", media::OCI_INDEX, media::OCI_MANIFEST, "text/html"][served];
        for document in [MANIFEST, INDEX, CONFIG] {
            let bytes = broken(document, &edits);
            drop(ImageConfig::parse(&bytes));
            let Ok(read) = Document::parse(served, &bytes) else { continue };
            let text = match &read {
                Document::Index(index) => serde_json::to_vec(index),
                Document::Manifest(manifest) => serde_json::to_vec(manifest),
            };
            let kind = match &read {
                Document::Index(_) => media::OCI_INDEX,
                Document::Manifest(_) => media::OCI_MANIFEST,
            };
            // A document that was served as nothing we know may call itself anything.
            if served == kind {
                prop_assert_eq!(Document::parse(kind, &text.unwrap()).unwrap(), read);
            }
        }
    }

    #[test]
    fn a_digest_is_what_it_was_read_from(
        text in "(sha256|sha384|sha512|md5|SHA256|)[:.]{0,2}[0-9a-fA-F/]{0,140}",
    ) {
        if let Ok(digest) = Digest::parse(&text) {
            prop_assert_eq!(digest.as_str(), &text);
            prop_assert_eq!(format!("{}:{}", digest.algorithm(), digest.hex()), text);
            prop_assert!(digest.hex().bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()));
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_the_pieces(bytes: Vec<u8>, cut in 1_usize..40) {
        let mut writer = HashingWriter::new(Vec::new());
        for piece in bytes.chunks(cut) {
            writer.write_all(piece).unwrap();
        }
        let (written, digest, size) = writer.finish();
        prop_assert_eq!((size, digest), (bytes.len() as u64, Digest::of(&bytes)));
        prop_assert_eq!(written, bytes);
    }

    #[test]
    fn platforms_have_one_normal_form(
        text in "(linux|windows|Linux|macos|[a-z0-9._-]{1,5})(/(amd64|x86_64|arm|armhf|aarch64|[a-zA-Z0-9]{1,5})(/(v?[0-9]{1,10}|[a-z.0-9]{1,3}))?)?(/x)?",
    ) {
        let Ok(platform) = Platform::parse(&text) else { return Ok(()) };
        prop_assert_eq!(platform.normalised(), platform.clone());
        prop_assert_eq!(Platform::parse(&platform.to_string()).unwrap(), platform.clone());
        prop_assert_eq!(platform.rank(&platform), Some(0));
        // Callers order images by the first platform that fits, then by rank.
        for older in ["386", "amd64", "arm/v5"] {
            let older = Platform::parse(&format!("linux/{older}")).unwrap();
            prop_assert!(platform.rank(&older).is_none_or(|rank| rank < 64), "{:?}", platform.rank(&older));
        }
    }

    #[test]
    fn a_full_name_is_qualified(
        text in "([a-zA-Z0-9.-]{1,6}(:[0-9]{1,3})?/)?[a-z0-9._/-]{1,12}(:[a-zA-Z0-9_.-]{1,5})?",
    ) {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(Reference::parse_qualified(&reference.to_string()).unwrap(), reference);
        }
    }
}
