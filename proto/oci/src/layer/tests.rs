//! The extractor against layers that are well-made, odd, and hostile. Those that make devices or
//! trusted attributes need root and say so.

use super::*;
use crate::digest::Digest;
use rustix::fs::{AtFlags, FileType, getxattr, statat};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use tar::EntryType;

/// A tar written by hand, so that it may be wrong.
struct Layer(Vec<u8>);

impl Layer {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn raw(mut self, name: &str, kind: EntryType, mode: u32, link: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        let padded = self.0.len().next_multiple_of(512);
        self.0.resize(padded, 0);
        self
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.raw(name, EntryType::Regular, 0o644, "", data)
    }

    fn dir(self, name: &str) -> Self {
        self.raw(name, EntryType::Directory, 0o755, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(name, EntryType::Symlink, 0o777, target, b"")
    }

    fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut length = rest.len() + 1;
            while format!("{length}{rest}").len() != length {
                length += 1;
            }
            data.extend_from_slice(format!("{length}{rest}").as_bytes());
        }
        self.raw("pax", EntryType::XHeader, 0o644, "", &data)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn apply_to(dir: &Path, layer: &[u8], whiteouts: Whiteouts) -> Result<Applied, LayerError> {
    let fd = std::fs::File::open(dir).unwrap();
    apply(layer, fd.as_fd(), whiteouts)
}

fn extract(layer: &[u8]) -> (tempfile::TempDir, Result<Applied, LayerError>) {
    let dir = tempfile::tempdir().unwrap();
    let applied = apply_to(dir.path(), layer, Whiteouts::Overlay);
    (dir, applied)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_whiteout(path: &Path) -> bool {
    let meta = std::fs::symlink_metadata(path).unwrap();
    FileType::from_raw_mode(meta.mode()) == FileType::CharacterDevice && meta.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0u8; 8];
    matches!(getxattr(path, "trusted.overlay.opaque", &mut value[..]), Ok(1)) && value[0] == b'y'
}

#[test]
fn files_directories_and_links_appear_with_modes_and_times() {
    let layer = Layer::new()
        .dir("./")
        .raw("d/", EntryType::Directory, 0o1777, "", b"")
        .pax(&[("mtime", "1000000000.25"), ("SCHILY.xattr.user.note", "hi")])
        .raw("d/f", EntryType::Regular, 0o4755, "", b"hello")
        .raw("d/hard", EntryType::Link, 0o755, "d/f", b"")
        .symlink("d/soft", "../../../etc/passwd")
        .file("deep/down/here", b"x")
        .raw("pipe", EntryType::Fifo, 0o600, "", b"")
        .end();
    let (dir, applied) = extract(&layer);
    let applied = applied.unwrap();
    assert_eq!(applied.diff_id, Digest::of(&layer));
    assert_eq!((applied.size, applied.compression), (layer.len() as u64, Compression::None));
    let file = std::fs::metadata(dir.path().join("d/f")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.nlink()), (0o4755, 2));
    assert_eq!((file.mtime(), file.mtime_nsec()), (1_000_000_000, 250_000_000));
    let directory = std::fs::metadata(dir.path().join("d")).unwrap();
    assert_eq!((directory.mode() & 0o7777, directory.mtime()), (0o1777, 1_000_000_000));
    let target = std::fs::read_link(dir.path().join("d/soft")).unwrap();
    assert_eq!(target, Path::new("../../../etc/passwd"));
    assert_eq!(std::fs::read(dir.path().join("deep/down/here")).unwrap(), b"x");
    let pipe = std::fs::symlink_metadata(dir.path().join("pipe")).unwrap();
    assert_eq!(FileType::from_raw_mode(pipe.mode()), FileType::Fifo);
    let mut value = [0u8; 8];
    let note = getxattr(dir.path().join("d/f"), "user.note", &mut value[..]);
    assert_eq!((note, &value[..2]), (Ok(2), &b"hi"[..]));
}

#[test]
fn gzip_and_zstd_are_told_by_their_first_bytes() {
    let plain = Layer::new().file("f", b"data").end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
    for (bytes, compression) in
        [(gzip.finish().unwrap(), Compression::Gzip), (zstd, Compression::Zstd)]
    {
        let (dir, applied) = extract(&bytes);
        let applied = applied.unwrap();
        assert_eq!((applied.diff_id, applied.compression), (Digest::of(&plain), compression));
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"data");
        let cut = &bytes[..bytes.len() - 9];
        assert!(matches!(extract(cut).1, Err(LayerError::Read(_))), "{compression:?}");
    }
}

#[test]
fn an_empty_stream_is_an_empty_layer() {
    let (_dir, applied) = extract(b"");
    assert_eq!(applied.unwrap().size, 0);
}

#[test]
fn names_that_climb_out_are_refused() {
    for name in ["../evil", "a/../../evil", "/../evil", ".."] {
        let (dir, applied) = extract(&Layer::new().file(name, b"x").end());
        assert!(matches!(applied, Err(LayerError::Escape { .. })), "{name}");
        assert!(!dir.path().parent().unwrap().join("evil").exists());
    }
}

#[test]
fn a_symlink_made_a_line_earlier_leads_nowhere_outside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let layer = Layer::new().symlink("out", target).file("out/evil", b"x").end();
    let (dir, applied) = extract(&layer);
    // Resolved below the root, where the path does not exist.
    assert!(applied.is_err());
    assert!(!outside.path().join("evil").exists());
    drop(dir);
    let climbing = format!("../../../../../../../..{target}");
    let layer = Layer::new().symlink("out", &climbing).file("out/evil", b"x").end();
    assert!(extract(&layer).1.is_err());
    assert!(!outside.path().join("evil").exists());
    // Within the layer a link to a directory is followed, below the root.
    let layer = Layer::new().dir("real").symlink("link", "/real").file("link/f", b"x").end();
    let (dir, applied) = extract(&layer);
    applied.unwrap();
    assert!(dir.path().join("real/f").exists());
}

#[test]
fn a_file_over_a_symlink_replaces_the_link_and_not_its_target() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let target = outside.path().to_str().unwrap();
    let layer = Layer::new().symlink("f", target).file("f", b"evil").end();
    let (dir, applied) = extract(&layer);
    applied.unwrap();
    assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"evil");
}

#[test]
fn hard_links_stay_inside() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let target = outside.path().to_str().unwrap();
    for link in [target, "../../etc/passwd", "/etc/passwd", "missing"] {
        let layer = Layer::new().raw("evil", EntryType::Link, 0o644, link, b"").end();
        assert!(extract(&layer).1.is_err(), "{link}");
    }
    let layer =
        Layer::new().symlink("s", target).raw("evil", EntryType::Link, 0o644, "s", b"").end();
    let (dir, applied) = extract(&layer);
    applied.unwrap();
    // The link itself is linked, not the file outside.
    assert!(std::fs::symlink_metadata(dir.path().join("evil")).unwrap().is_symlink());
}

#[test]
fn directory_times_and_modes_are_not_put_on_a_link_that_took_the_place() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::set_permissions(outside.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let before = std::fs::metadata(outside.path()).unwrap().mtime();
    let target = outside.path().to_str().unwrap();
    let layer = Layer::new().dir("d").symlink("d", target).end();
    extract(&layer).1.unwrap();
    let after = std::fs::metadata(outside.path()).unwrap();
    assert_eq!((after.mtime(), after.mode() & 0o777), (before, 0o700));
}

#[test]
fn whiteouts_become_overlay_devices_and_opaque_marks() {
    if !is_root() {
        return;
    }
    let layer = Layer::new()
        .dir("d")
        .file("d/.wh.gone", b"")
        .file("o/new", b"")
        .file("o/.wh..wh..opq", b"")
        .file(".wh..wh.plnk", b"")
        .dir("both")
        .file(".wh.both", b"")
        .file(".wh.again", b"")
        .dir("again")
        .end();
    let (dir, applied) = extract(&layer);
    applied.unwrap();
    assert!(is_whiteout(&dir.path().join("d/gone")));
    assert!(is_opaque(&dir.path().join("o")));
    assert!(dir.path().join("o/new").exists());
    assert!(is_opaque(&dir.path().join("both")));
    assert!(is_opaque(&dir.path().join("again")));
    assert!(!is_opaque(&dir.path().join("d")));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn whiteouts_remove_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let base = Layer::new()
        .file("a/one", b"1")
        .file("a/two", b"2")
        .file("b/deep/down/three", b"3")
        .file("keep", b"4")
        .end();
    apply_to(dir.path(), &base, Whiteouts::Remove).unwrap();
    let layer = Layer::new()
        .file("a/new", b"")
        .file("a/.wh..wh..opq", b"")
        .file(".wh.b", b"")
        .file(".wh.missing", b"")
        .file("nowhere/.wh.x", b"")
        .end();
    apply_to(dir.path(), &layer, Whiteouts::Remove).unwrap();
    assert!(!dir.path().join("a/one").exists() && !dir.path().join("b").exists());
    assert!(dir.path().join("a/new").exists() && dir.path().join("keep").exists());
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn whiteouts_of_dots_are_refused() {
    for name in [".wh.", "d/.wh..", "d/.wh..."] {
        for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("root")).unwrap();
            let layer = Layer::new().dir("d").file(name, b"").end();
            let applied = apply_to(&dir.path().join("root"), &layer, whiteouts);
            assert!(matches!(applied, Err(LayerError::Entry { .. })), "{name}");
            assert!(dir.path().join("root").exists());
        }
    }
}

#[test]
fn a_whiteout_through_a_link_removes_nothing_outside() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("precious"), b"x").unwrap();
    let target = outside.path().to_str().unwrap();
    let layer = Layer::new().symlink("l", target).file("l/.wh.precious", b"").end();
    let dir = tempfile::tempdir().unwrap();
    apply_to(dir.path(), &layer, Whiteouts::Remove).unwrap();
    assert!(outside.path().join("precious").exists());
}

#[test]
fn devices_keep_their_numbers_and_overlay_attributes_are_dropped() {
    if !is_root() {
        return;
    }
    let layer = Layer::new()
        .raw("null", EntryType::Char, 0o666, "", b"")
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", "/etc")])
        .dir("d")
        .end();
    let (dir, applied) = extract(&layer);
    applied.unwrap();
    let fd = std::fs::File::open(dir.path()).unwrap();
    let null = statat(fd.as_fd(), "null", AtFlags::empty()).unwrap();
    assert_eq!((null.st_rdev, null.st_mode & 0o777), (rustix::fs::makedev(1, 3), 0o666));
    let mut value = [0u8; 8];
    assert!(getxattr(dir.path().join("d"), "trusted.overlay.redirect", &mut value[..]).is_err());
}

/// A directory below with `a/b` of mode 1750.
fn below() -> tempfile::TempDir {
    let lower = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(lower.path().join("a/b")).unwrap();
    std::fs::set_permissions(lower.path().join("a/b"), PermissionsExt::from_mode(0o1750)).unwrap();
    lower
}

fn mode(directory: &Path, path: &str) -> u32 {
    std::fs::symlink_metadata(directory.join(path)).unwrap().mode() & 0o7777
}

/// The layer over `below`.
fn over(below: &Path, layer: &[u8]) -> (tempfile::TempDir, Applied) {
    let (directory, applied) = extract(layer);
    let applied = applied.unwrap();
    let lower = [std::fs::File::open(below).unwrap().into()];
    let root = std::fs::File::open(directory.path()).unwrap();
    inherit(root.as_fd(), &applied.missing, &lower).unwrap();
    (directory, applied)
}

#[test]
fn missing_directories_look_like_the_layers_below() {
    let lower = below();
    let (directory, _) = over(lower.path(), &Layer::new().file("a/b/c", b"").end());
    assert_eq!(mode(directory.path(), "a/b"), 0o1750);
}

#[test]
fn what_the_layer_says_of_a_directory_later_stays() {
    let lower = below();
    let layer = Layer::new().file("a/b/c", b"").raw("a/b", EntryType::Directory, 0o711, "", b"");
    let (directory, applied) = over(lower.path(), &layer.end());
    assert_eq!(mode(directory.path(), "a/b"), 0o711);
    assert_eq!(applied.missing, Missing::from(["a".into()]));
}

#[test]
fn a_missing_directory_that_became_a_link_or_went_is_left_alone() {
    let lower = below();
    let link = Layer::new().file("a/b/c", b"").raw("a/b", EntryType::Symlink, 0o777, "/", b"");
    let (directory, _) = over(lower.path(), &link.end());
    assert_eq!(std::fs::read_link(directory.path().join("a/b")).unwrap(), Path::new("/"));
    let gone = Layer::new().file("a/b/c", b"").file("a", b"");
    let (directory, _) = over(lower.path(), &gone.end());
    assert!(directory.path().join("a").is_file());
}

#[test]
fn what_a_layer_says_of_the_root_is_passed_over() {
    let before = tempfile::tempdir().unwrap();
    let (directory, applied) =
        extract(&Layer::new().raw("./", EntryType::Directory, 0o111, "", b"").end());
    assert_eq!(applied.unwrap().missing, Missing::new());
    assert_eq!(mode(directory.path(), "."), mode(before.path(), "."));
}

#[test]
fn sparse_members_are_written_at_their_places_or_refused() {
    let mut data = b"1\n4096\n3\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"end");
    let layer = Layer::new()
        .pax(&[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "real"),
            ("GNU.sparse.realsize", "8192"),
        ])
        .file("GNUSparseFile.1/real", &data)
        .end();
    let (dir, applied) = extract(&layer);
    applied.unwrap();
    let bytes = std::fs::read(dir.path().join("real")).unwrap();
    assert_eq!((bytes.len(), &bytes[4096..4099]), (8192, &b"end"[..]));
    let old = Layer::new().pax(&[("GNU.sparse.map", "0,1")]).file("x", b"").end();
    assert!(matches!(extract(&old).1, Err(LayerError::Entry { .. })));
}

#[test]
fn numbers_that_nobody_filled_in_are_noughts() {
    let mut layer = Layer::new().dir("d/").file("d/f", b"x").0;
    for header in [0, 512] {
        for blank in [108..116, 116..124, 136..148, 329..345] {
            layer[header..][blank].fill(if header == 0 { 0 } else { b' ' });
        }
        let mut sum = 8 * u32::from(b' ');
        let block = &layer[header..header + 512];
        sum += block[..148].iter().chain(&block[156..]).map(|&byte| u32::from(byte)).sum::<u32>();
        layer[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let (dir, outcome) = extract(&layer);
    if is_root() {
        outcome.unwrap();
        let told = std::fs::metadata(dir.path().join("d/f")).unwrap();
        assert_eq!((told.uid(), told.gid(), told.mtime()), (0, 0, 0));
    }
}

#[test]
fn broken_archives_are_errors() {
    let good = Layer::new().file("f", &[7; 5000]).end();
    assert!(extract(&good[..2000]).1.is_err());
    assert!(extract(&[0x41; 1024]).1.is_err());
    let unknown = Layer::new().raw("x", EntryType::new(b'Z'), 0o644, "", b"").end();
    assert!(matches!(extract(&unknown).1, Err(LayerError::Kind { kind: 'Z', .. })));
    let nested = Layer::new().file("f", b"").file("f/below", b"").end();
    assert!(extract(&nested).1.is_err());
}

#[test]
fn bytes_after_the_end_belong_to_the_diff_id() {
    let mut layer = Layer::new().file("f", b"").end();
    layer.resize(layer.len() + 10240, 0);
    assert_eq!(extract(&layer).1.unwrap().diff_id, Digest::of(&layer));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn noise_never_panics_nor_leaves_the_directory(
        names in proptest::collection::vec("(\\.wh\\.)?[./a-c]{1,6}", 1..8),
        kinds in proptest::collection::vec(0u8..6, 8),
    ) {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let mut layer = Layer::new();
        for (name, kind) in names.iter().zip(kinds) {
            layer = match kind {
                0 => layer.dir(name),
                1 => layer.symlink(name, "../.."),
                2 => layer.raw(name, EntryType::Link, 0o644, "a/b", b""),
                3 => layer.symlink(name, "/"),
                _ => layer.file(name, b"x"),
            };
        }
        drop(apply_to(&root, &layer.end(), Whiteouts::Remove));
        proptest::prop_assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
        proptest::prop_assert!(root.is_dir());
    }
}

#[test]
fn renames_elsewhere_do_not_get_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
    std::os::unix::fs::symlink("a/b/../b/../b/../b", directory.path().join("link")).unwrap();
    let fd = std::fs::File::open(directory.path()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let elsewhere = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let names = [elsewhere.path().join("x"), elsewhere.path().join("y")];
            std::fs::create_dir(&names[0]).unwrap();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::rename(&names[0], &names[1]).unwrap();
                std::fs::rename(&names[1], &names[0]).unwrap();
            }
        });
        let root = super::root::Root::new(fd.as_fd());
        let failed = (0..20_000).filter(|_| root.existing(Path::new("link")).is_err()).count();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(failed, 0);
    });
}
