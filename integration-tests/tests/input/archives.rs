//! Archives that are broken, or that lead somewhere: load and import.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use integration_tests::image::{architecture, digest, layer};
use serde_json::{Value, json};

use crate::cuts::{let_go, told};
use crate::http::{connect, memory, rest, sockets};
use crate::table;
use crate::world::World;

/// A tar of raw headers, so that everything can be said that ought not to be.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.head(path, b'0', "", content.len() as u64).body(content)
    }

    fn link(self, path: &str, kind: u8, target: &str) -> Self {
        self.head(path, kind, target, 0)
    }

    fn directory(self, path: &str) -> Self {
        self.head(path, b'5', "", 0)
    }

    fn head(self, path: &str, kind: u8, target: &str, size: u64) -> Self {
        self.raw(path, kind, target, format!("{size:011o}\0").as_bytes())
    }

    /// A header whose size may be any twelve bytes.
    fn raw(mut self, path: &str, kind: u8, target: &str, size: &[u8]) -> Self {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &path.as_bytes()[..path.len().min(100)]);
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, size);
        put(136, b"14524770400\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, &target.as_bytes()[..target.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, b"0000001\0");
        put(337, b"0000003\0");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self
    }

    fn body(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A path longer than a header holds, in GNU's way.
    fn long(self, path: &str) -> Self {
        self.head("././@LongLink", b'L', "", path.len() as u64 + 1)
            .body(format!("{path}\0").as_bytes())
    }

    /// Attributes for the next entry, in POSIX's way.
    fn attributes(self, all: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (name, value) in all {
            let rest = name.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            text += &format!("{length} {name}={value}\n");
        }
        self.head("PaxHeaders/x", b'x', "", text.len() as u64).body(text.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A docker-archive of one layer, with the manifest and the configuration as given.
fn docker(layer: &[u8], config: &Value, manifest: &Value) -> Vec<u8> {
    Tar::default()
        .file("l/layer.tar", layer)
        .file("c.json", config.to_string())
        .file("manifest.json", manifest.to_string())
        .end()
}

fn config(layers: &[&[u8]]) -> Value {
    json!({"os": "linux", "architecture": architecture(), "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers",
            "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()}})
}

fn manifest() -> Value {
    json!([{"Config": "c.json", "RepoTags": ["test/bad:1"], "Layers": ["l/layer.tar"]}])
}

/// An OCI layout of one layer; what is changed afterwards no longer has its digest.
fn layout(change: impl Fn(&mut BTreeMap<String, Vec<u8>>)) -> Vec<u8> {
    let layer = layer(&[("f", "x")]);
    let config = config(&[&layer]).to_string().into_bytes();
    let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "size": bytes.len(), "digest": digest(bytes)});
    let manifest =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("config.v1+json", &config),
        "layers": [describe("layer.v1.tar", &layer)]})
        .to_string()
        .into_bytes();
    let mut described = describe("manifest.v1+json", &manifest);
    described["annotations"] = json!({"io.containerd.image.name": "docker.io/test/bad:1"});
    let index = json!({"schemaVersion": 2, "manifests": [described]}).to_string().into_bytes();
    let mut files = BTreeMap::from([
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
        ("layer".to_owned(), layer),
        ("config".to_owned(), config),
        ("manifest".to_owned(), manifest),
    ]);
    let names: BTreeMap<String, String> = ["layer", "config", "manifest"]
        .map(|name| (name.to_owned(), format!("blobs/sha256/{}", &digest(&files[name])[7..])))
        .into();
    change(&mut files);
    let mut tar = Tar::default();
    for (name, bytes) in files {
        tar = tar.file(names.get(&name).unwrap_or(&name), bytes);
    }
    tar.end()
}

/// A row's name and the archive.
type Case = (&'static str, Vec<u8>);

const TABLE: &str = include_str!("../golden/archives.txt");

fn archives() -> Vec<Case> {
    let good = layer(&[("f", "x")]);
    let plain = config(&[&good]);
    let with = |manifest: Value| docker(&good, &plain, &manifest);
    let of = |config: Value| docker(&good, &config, &manifest());
    let member =
        |path: &str| json!([{"Config": "c.json", "RepoTags": ["test/bad:1"], "Layers": [path]}]);
    vec![
        ("no manifest", Tar::default().file("l/layer.tar", &good).end()),
        ("an empty archive", Tar::default().end()),
        ("a manifest that is no JSON", Tar::default().file("manifest.json", "nope").end()),
        ("an empty manifest", Tar::default().file("manifest.json", "[]").end()),
        ("a manifest that is an object", with(json!({}))),
        ("a manifest of numbers", with(json!([5]))),
        (
            "a manifest without a configuration",
            with(json!([{"RepoTags": ["test/bad:1"], "Layers": ["l/layer.tar"]}])),
        ),
        (
            "a configuration that is not there",
            with(
                json!([{"Config": "nope", "RepoTags": ["test/bad:1"], "Layers": ["l/layer.tar"]}]),
            ),
        ),
        ("a layer that is not there", with(member("nope"))),
        ("a layer above the archive", with(member("../../../etc/passwd"))),
        ("a layer at the root", with(member("/etc/passwd"))),
        (
            "a name that is none",
            with(json!([{"Config": "c.json", "RepoTags": ["UPPER"], "Layers": ["l/layer.tar"]}])),
        ),
        (
            "a configuration that is no JSON",
            Tar::default()
                .file("l/layer.tar", &good)
                .file("c.json", "nope")
                .file("manifest.json", manifest().to_string())
                .end(),
        ),
        ("a configuration of nothing", of(json!({}))),
        ("a configuration without layers", of(config(&[]))),
        ("a configuration with more layers", of(config(&[&good, &good]))),
        ("a layer with another digest", of(config(&[b"other"]))),
        (
            "a digest that is none",
            of(
                json!({"os": "linux", "architecture": architecture(), "rootfs": {"type": "layers", "diff_ids": ["nope"]}}),
            ),
        ),
        (
            "a configuration that is a link",
            Tar::default()
                .file("l/layer.tar", &good)
                .link("c.json", b'2', "/etc/passwd")
                .file("manifest.json", manifest().to_string())
                .end(),
        ),
        (
            "a layer that is a link",
            Tar::default()
                .link("l/layer.tar", b'2', "/etc/passwd")
                .file("c.json", plain.to_string())
                .file("manifest.json", manifest().to_string())
                .end(),
        ),
        (
            "a manifest that is a link",
            Tar::default().link("manifest.json", b'2', "/etc/passwd").end(),
        ),
        ("a manifest that is a device", Tar::default().head("manifest.json", b'3', "", 0).end()),
        ("a manifest that is a directory", Tar::default().directory("manifest.json/").end()),
        ("a layer that is no tar", docker(b"nope", &config(&[b"nope"]), &manifest())),
        (
            "a layer that is bad gzip",
            docker(b"\x1f\x8b\x08\x00nope", &config(&[b"\x1f\x8b\x08\x00nope"]), &manifest()),
        ),
        ("bad gzip", b"\x1f\x8b\x08\x00nopenopenope".to_vec()),
        ("bad zstd", b"\x28\xb5\x2f\xfdnopenopenope".to_vec()),
        (
            "a size that is negative",
            Tar::default().raw("manifest.json", b'0', "", &[0xff; 12]).end(),
        ),
        (
            "a size of eight exabytes",
            Tar::default()
                .raw("manifest.json", b'0', "", b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")
                .end(),
        ),
        ("a size in letters", Tar::default().raw("manifest.json", b'0', "", b"nopenopenope").end()),
        (
            "a manifest of eight gibibytes",
            Tar::default().raw("manifest.json", b'0', "", b"77777777777\0").body(b"[]").end(),
        ),
        ("a header with a wrong sum", {
            let mut tar = Tar::default().file("manifest.json", "[]").end();
            tar[0] ^= 1;
            tar
        }),
        (
            "a name of four gibibytes",
            Tar::default().raw("././@LongLink", b'L', "", b"37777777777\0").body(b"x").end(),
        ),
        (
            "attributes of four gibibytes",
            Tar::default().raw("PaxHeaders/x", b'x', "", b"37777777777\0").body(b"x").end(),
        ),
        (
            "attributes that are none",
            Tar::default()
                .head("PaxHeaders/x", b'x', "", 4)
                .body(b"nope")
                .file("manifest.json", "[]")
                .end(),
        ),
        (
            "attributes that say the size",
            Tar::default()
                .attributes(&[("size", "99999999999999")])
                .file("manifest.json", "[]")
                .end(),
        ),
        ("a layout without an index", layout(|files| drop(files.remove("index.json")))),
        (
            "a layout whose index is no JSON",
            layout(|files| drop(files.insert("index.json".to_owned(), b"nope".to_vec()))),
        ),
        ("a layout without its manifest", layout(|files| drop(files.remove("manifest")))),
        ("a layout without its configuration", layout(|files| drop(files.remove("config")))),
        ("a layout without its layer", layout(|files| drop(files.remove("layer")))),
        (
            "a layout whose manifest has another digest",
            layout(|files| files.get_mut("manifest").unwrap().push(b' ')),
        ),
        (
            "a layout whose configuration has another digest",
            layout(|files| files.get_mut("config").unwrap()[0] = b' '),
        ),
        (
            "a layout whose layer has another digest",
            layout(|files| files.get_mut("layer").unwrap()[0] = b'g'),
        ),
        (
            "a layout whose layer is short",
            layout(|files| files.get_mut("layer").unwrap().truncate(700)),
        ),
    ]
}

/// Layers that lead out of the image, to `victim`, or hold what no file system takes.
fn layers(victim: &str) -> Vec<Case> {
    let up = "../".repeat(14);
    let deep = "d/".repeat(3000);
    let out = format!("{up}{}", &victim[1..]);
    vec![
        ("a file above the root", Tar::default().file(&format!("{out}/new"), "x").end()),
        (
            "a file above the root, in the middle",
            Tar::default().file(&format!("a/{out}/new"), "x").end(),
        ),
        ("a file at an absolute path", Tar::default().file(&format!("{victim}/new"), "x").end()),
        (
            "a file through a link that leads out",
            Tar::default().link("l", b'2', victim).file("l/new", "x").end(),
        ),
        (
            "a file through a link that leads up",
            Tar::default().link("l", b'2', &out).file("l/new", "x").end(),
        ),
        (
            "a file over a link that leads out",
            Tar::default().link("l", b'2', &format!("{victim}/kept")).file("l", "x").end(),
        ),
        (
            "a hard link to the outside",
            Tar::default().link("l", b'1', &format!("{victim}/kept")).end(),
        ),
        (
            "a hard link to above the root",
            Tar::default().link("l", b'1', &format!("{out}/kept")).end(),
        ),
        (
            "a hard link through a link that leads out",
            Tar::default().link("d", b'2', victim).link("l", b'1', "d/kept").end(),
        ),
        ("a hard link to what is not there", Tar::default().link("l", b'1', "nope").end()),
        (
            "a link that leads out and is written to",
            Tar::default()
                .link("l", b'2', &format!("{victim}/kept"))
                .link("h", b'1', "l")
                .file("h", "x")
                .end(),
        ),
        ("a whiteout above the root", Tar::default().file(&format!("{out}/.wh.kept"), "").end()),
        (
            "a whiteout through a link that leads out",
            Tar::default().link("l", b'2', victim).file("l/.wh.kept", "").end(),
        ),
        ("a whiteout of the parent", Tar::default().file(".wh...", "").end()),
        ("a whiteout of nothing", Tar::default().file(".wh.", "").end()),
        ("a whiteout of the directory itself", Tar::default().file("d/.wh..", "").end()),
        ("a device", Tar::default().head("dev/null", b'3', "", 0).end()),
        ("a pipe", Tar::default().head("pipe", b'6', "", 0).end()),
        ("an entry of an unknown kind", Tar::default().head("x", b'Z', "", 0).end()),
        ("an entry without a name", Tar::default().file("", "x").end()),
        ("an entry that is the root", Tar::default().directory("/").file("f", "x").end()),
        ("a file that is the root", Tar::default().file("/", "x").end()),
        ("a path of three thousand directories", Tar::default().long(&deep).directory("d").end()),
        (
            "a name of three hundred letters",
            Tar::default().long(&"n".repeat(300)).file("n", "x").end(),
        ),
        (
            "an entry that is there twice",
            Tar::default().file("f", "x").file("f", "yy").directory("f/").file("f/g", "z").end(),
        ),
        (
            "a directory over a link",
            Tar::default().link("d", b'2', victim).directory("d/").file("d/new", "x").end(),
        ),
        (
            "a file of eight gibibytes",
            Tar::default().raw("f", b'0', "", b"77777777777\0").body(b"x").end(),
        ),
        ("a file of a negative size", Tar::default().raw("f", b'0', "", &[0xff; 12]).end()),
        (
            "an attribute that cannot be",
            Tar::default().attributes(&[("SCHILY.xattr.nope", "x")]).file("f", "x").end(),
        ),
        (
            "a path that attributes lead out",
            Tar::default().attributes(&[("path", &format!("{out}/new"))]).file("f", "x").end(),
        ),
        (
            "a target that attributes lead out",
            Tar::default()
                .attributes(&[("linkpath", &format!("{victim}/kept"))])
                .link("l", b'1', "f")
                .end(),
        ),
        (
            "a path with a zero byte",
            Tar::default().attributes(&[("path", "a\0b")]).file("f", "x").end(),
        ),
    ]
}

fn answer(status: u16, text: &str) -> String {
    let lines = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let lines: Vec<Value> = lines.map_while(Result::ok).collect();
    let word = |key: &str| lines.iter().rev().find_map(|line| line[key].as_str());
    let told = match (word("error"), word("message")) {
        (Some(error), _) => format!(" in the stream: {error}"),
        (None, Some(message)) => format!(" {message}"),
        _ => String::new(),
    };
    format!("{status}{told}").trim_end().replace('\n', "\\n")
}

/// Sends each, compares its answer, and looks whether anything is left. What is taken is removed
/// again.
fn try_all(chapter: &str, path: &str, cases: impl Fn(&str) -> Vec<Case>) {
    let world = World::new();
    let api = world.api();
    let victim = world.root().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("kept"), "as it was").unwrap();
    let before = told(&world);
    let seen = tree(&victim);
    let rows = table::read(TABLE);
    let mut rows = rows.iter().filter(|(of, _)| of == chapter).map(|(_, row)| row);
    let mut wrong = Vec::new();
    for (number, (name, bytes)) in cases(victim.to_str().unwrap()).into_iter().enumerate() {
        let row = rows.next().filter(|row| row.name == name);
        let row = row.unwrap_or_else(|| panic!("{name:?} is not the table's next row"));
        let expected = row.expected(&world);
        let came = api.post_bytes(path, "application/x-tar", bytes);
        let came = world.veil(&answer(came.status, &came.text()), "");
        if came != expected {
            wrong.push(format!("{name}\n  wanted  {expected}\n  answer  {came}"));
        }
        world.sweep();
        assert_eq!(tree(&victim), seen, "outside, after {name:?}");
        assert_eq!(told(&world), before, "after {name:?}");
        // To look at everything takes longer than to ask.
        if !world.is_stock() && number % 8 == 7 {
            world.unchanged().unwrap_or_else(|left| panic!("by {name:?} or before:\n{left}"));
        }
    }
    assert_eq!(rows.next().map(|row| &row.name), None, "a row that nothing asks for");
    if !world.is_stock() {
        world.unchanged().unwrap();
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    std::fs::remove_dir_all(victim).unwrap();
}

/// What is below a directory, with the files' text.
fn tree(at: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(at).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        found.insert(entry.path().display().to_string(), text);
    }
    found
}

#[test]
fn archives_that_are_none_are_refused() {
    try_all("archives", "/images/load", |_| archives());
}

#[test]
fn layers_that_lead_out_stay_inside() {
    let packed = |(name, layer): Case| (name, docker(&layer, &config(&[&layer]), &manifest()));
    try_all("layers", "/images/load", |victim| layers(victim).into_iter().map(packed).collect());
}

#[test]
fn imports_that_lead_out_stay_inside() {
    try_all("imports", "/images/create?fromSrc=-&repo=test/bad&tag=1", layers);
}

#[test]
fn an_archive_that_ends_anywhere_is_refused() {
    let world = World::new();
    let api = world.api();
    let before = told(&world);
    let files = layer(&[("a", "x"), ("b", &"y".repeat(2000))]);
    let tar = docker(&files, &config(&[&files]), &manifest());
    let content = tar.len() - 1024;
    // Every block's beginning, and places inside.
    let ends =
        (0..content).step_by(512).flat_map(|at| [at, at + 100]).filter(|&at| at < content - 512);
    for end in ends {
        let came = api.post_bytes("/images/load", "application/x-tar", tar[..end].to_vec());
        let came = answer(came.status, &came.text());
        assert!(came.contains("in the stream: ") || !came.starts_with('2'), "after {end}: {came}");
        assert_eq!(told(&world), before, "after {end} bytes");
    }
    world.unchanged().unwrap();
}

#[test]
fn zeros_without_end_are_an_end() {
    let world = World::new();
    let before = (told(&world), memory(&world), sockets(&world));
    for path in ["/images/load", "/images/create?fromSrc=-&repo=test/bad&tag=1"] {
        let mut socket = connect(&world);
        let head = format!(
            "POST /v1.41{path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: 1073741824\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        let zeros = vec![0; 1 << 20];
        let mut sent = 0;
        while sent < 64 && socket.write_all(&zeros).is_ok() {
            sent += 1;
        }
        drop(socket.shutdown(std::net::Shutdown::Write));
        let came = rest(&mut socket);
        assert!(!came.contains("Loaded image") && !came.contains("sha256:"), "{path}: {came}");
    }
    if !world.is_stock() {
        let grown = memory(&world).saturating_sub(before.1);
        assert!(grown < 16 << 10, "{grown} KiB more");
    }
    let_go(&world, before.2);
    assert_eq!(told(&world), before.0);
    world.unchanged().unwrap();
}

#[test]
fn names_and_attributes_are_kept_in_bounded_memory() {
    let world = World::new();
    let before = (told(&world), peak(&world));
    for kind in [b'L', b'x'] {
        // A quarter of a gibibyte, packed into some hundred kilobytes.
        let size = 256_u64 << 20;
        let head = Tar::default().head("././@LongLink", kind, "", size).0;
        let packed = gzip(|out| {
            out.write_all(&head).unwrap();
            for _ in 0..size >> 20 {
                out.write_all(&[0; 1 << 20]).unwrap();
            }
        });
        assert!(packed.len() < 1 << 20, "{} bytes", packed.len());
        for layer in [false, true] {
            let body = if layer {
                docker(&packed, &config(&[&packed]), &manifest())
            } else {
                packed.clone()
            };
            let came = world.api().post_bytes("/images/load", "application/x-tar", body);
            let came = answer(came.status, &came.text());
            assert!(came.contains("in the stream: ") || !came.starts_with('2'), "{came}");
        }
    }
    if !world.is_stock() {
        let grown = peak(&world).saturating_sub(before.1);
        assert!(grown < 64 << 10, "{grown} KiB more");
    }
    assert_eq!(told(&world), before.0);
    world.unchanged().unwrap();
}

/// The most that containerd ever held, in KiB.
fn peak(world: &World) -> u64 {
    let pid = world.sandbox().outside(world.containerd());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn gzip(write: impl FnOnce(&mut dyn Write) + Send) -> Vec<u8> {
    let mut gzip = std::process::Command::new(integration_tests::parts::busybox())
        .args(["gzip", "-c"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = gzip.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || write(&mut stdin));
        gzip.wait_with_output().unwrap().stdout
    })
}
