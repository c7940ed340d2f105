//! Images of many layers: what each hides, lacks and replaces of those below it.

use integration_tests::image::{archive, busybox_layer};
use integration_tests::pool::{Lease, lease};
use serde_json::json;

use crate::output;

/// Path (of a directory with a `/` at its end), mode, owner, content.
type Entry<'a> = (&'a str, u32, u64, &'a str);

fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, owner, content) in entries {
        let directory = path.ends_with('/');
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if directory {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn load(stack: &Lease, name: &str, layers: &[Vec<u8>]) {
    let tar = archive(name, &json!({"config": {"Cmd": ["sh"]}}), layers);
    stack.api().post_bytes("/images/load?quiet=1", "application/x-tar", tar).expect(200);
    let told = stack.api().get(&format!("/images/{name}/json")).expect(200).json();
    assert_eq!(told["RootFS"]["Layers"].as_array().unwrap().len(), layers.len());
}

fn looks(stack: &Lease, image: &str, script: &str) -> String {
    output(stack, &json!({"Image": image, "Cmd": ["sh", "-c", script]}))
}

#[test]
fn each_layer_hides_replaces_and_completes_those_below() {
    let stack = lease();
    let own = layer(&[("a/deep/y", 0o600, 3, "y")]);
    let layers = [
        busybox_layer(),
        layer(&[
            ("a/", 0o750, 7, ""),
            ("a/deep/", 0o1711, 8, ""),
            ("a/x", 0o644, 0, "x"),
            ("o/", 0o755, 0, ""),
            ("o/1", 0o644, 0, "1"),
            ("t/", 0o700, 0, ""),
            ("t/f", 0o644, 0, "f"),
        ]),
        // Carries neither a/ nor a/deep/; they stay what they are.
        own.clone(),
        layer(&[("a/.wh.x", 0, 0, "")]),
        layer(&[("o/.wh..wh..opq", 0, 0, ""), ("o/2", 0o644, 0, "2")]),
        // The same once more: its own snapshot all the same.
        own,
        layer(&[(".wh.t", 0, 0, "")]),
        // Comes back, with nothing of what it was.
        layer(&[("t/g", 0o640, 5, "g")]),
        layer(&[("a/deep/y", 0o400, 9, "later")]),
    ];
    load(&stack, "test/layers:1", &layers);
    let script = "stat -c '%n %a %u' a a/deep a/deep/y t/g; ls a o t; cat a/deep/y o/2 t/g";
    // dockerd's own store makes anew what a layer does not carry; containerd's keeps it.
    let kept =
        if stack.is_stock() { "a 755 0\na/deep 755 0\n" } else { "a 750 7\na/deep 1711 8\n" };
    let rest = "a/deep/y 400 9\nt/g 640 5\na:\ndeep\n\no:\n2\n\nt:\ng\nlater2g";
    assert_eq!(looks(&stack, "test/layers:1", script), format!("{kept}{rest}"));
    stack.api().delete("/images/test/layers:1?force=1").expect(200);
}

#[test]
fn the_root_belongs_to_root_whatever_a_layer_says_of_it() {
    let stack = lease();
    let layers = [
        busybox_layer(),
        layer(&[("./", 0o711, 11, "")]),
        layer(&[("f", 0o644, 0, "f")]),
        layer(&[("g", 0o644, 0, "g")]),
    ];
    load(&stack, "test/root:1", &layers);
    assert_eq!(looks(&stack, "test/root:1", "stat -c '%a %u' /; ls f g"), "755 0\nf\ng");
    stack.api().delete("/images/test/root:1?force=1").expect(200);
}

#[test]
fn images_that_share_layers_are_loaded_at_the_same_time() {
    let stack = lease();
    let shared: Vec<Vec<u8>> = (0..4)
        .map(|number| layer(&[(&format!("shared/{number}"), 0o644, 0, &"s".repeat(1 << 18))]))
        .collect();
    let (stack, shared) = (&stack, &shared);
    let one = |image: usize| {
        let mut layers = vec![busybox_layer()];
        layers.extend(shared.iter().cloned());
        layers.push(layer(&[(&format!("own/{image}"), 0o644, 0, "own")]));
        let name = format!("test/shared:{image}");
        load(stack, &name, &layers);
        name
    };
    let names = std::thread::scope(|scope| {
        let all: Vec<_> = (0..3).map(|image| scope.spawn(move || one(image))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    for (image, name) in names.iter().enumerate() {
        let found = looks(stack, name, "cat shared/* | wc -c; ls own");
        assert_eq!(found, format!("{}\n{image}", 4 << 18));
        stack.api().delete(&format!("/images/{name}?force=1")).expect(200);
    }
}
