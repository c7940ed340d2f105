use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use docker_api::{StringMap, volume as api};

use super::mount::MountOptions;
use super::*;

fn request(name: &str) -> api::VolumeCreateRequest {
    api::VolumeCreateRequest { name: name.to_owned(), ..Default::default() }
}

fn filters(text: &str) -> Filters {
    Filters::parse(text).unwrap()
}

#[test]
fn a_volume_lives_on_after_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Local::open(dir.path()).unwrap();
    let labels = StringMap::from([("a".to_owned(), "1".to_owned())]);
    let (made, _) = volumes
        .create(&api::VolumeCreateRequest { labels: Some(labels), ..request("one") })
        .unwrap();
    assert_eq!(made.mountpoint, dir.path().join("volumes/one/_data").to_str().unwrap());
    assert_eq!((made.driver.as_str(), made.scope.as_str()), ("local", "local"));
    // The same name again is the same volume.
    assert_eq!(volumes.create(&request("one")).unwrap(), (made.clone(), false));
    std::fs::create_dir_all(dir.path().join("volumes/draft/_data")).unwrap();
    let again = Local::open(dir.path()).unwrap();
    assert_eq!(again.get("one").unwrap(), made);
    assert!(!dir.path().join("volumes/draft").exists());
    assert_eq!(again.get("two").unwrap_err().to_string(), "get two: no such volume");
}

#[test]
fn names_and_drivers_are_checked_with_dockerds_words() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Local::open(dir.path()).unwrap();
    let error = |request: &api::VolumeCreateRequest| volumes.create(request).unwrap_err();
    assert_eq!(
        error(&request("a/b")).to_string(),
        "create a/b: \"a/b\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    );
    for bad in ["..", "-a", "a b", "é1"] {
        assert_eq!(error(&request(bad)).class(), Kind::InvalidArgument, "{bad}");
    }
    assert!(matches!(error(&request("a")), VolumeError::ShortName(_)));
    let foreign = api::VolumeCreateRequest { driver: "zfs".to_owned(), ..request("ok") };
    assert_eq!(
        error(&foreign).to_string(),
        "create ok: error looking up volume plugin zfs: plugin \"zfs\" not found"
    );
}

#[test]
fn a_used_volume_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Local::open(dir.path()).unwrap();
    volumes.create(&request("one")).unwrap();
    volumes.acquire("one", "c1").unwrap();
    volumes.acquire("one", "c2").unwrap();
    assert_eq!(
        volumes.remove("one", true).unwrap_err().to_string(),
        "remove one: volume is in use - [c1, c2]"
    );
    assert_eq!(volumes.list(&filters(r#"{"dangling":["false"]}"#)).unwrap().len(), 1);
    volumes.release("one", "c1");
    volumes.release("one", "c2");
    assert_eq!(volumes.list(&filters(r#"{"dangling":["true"]}"#)).unwrap().len(), 1);
    volumes.remove("one", false).unwrap();
    assert!(!dir.path().join("volumes/one").exists());
    assert_eq!(volumes.remove("one", false).unwrap_err().class(), Kind::NotFound);
    volumes.remove("one", true).unwrap();
}

#[test]
fn prune_takes_anonymous_ones_and_with_all_every_unused_one() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Local::open(dir.path()).unwrap();
    let (anonymous, _) = volumes.create(&request("")).unwrap();
    assert_eq!(anonymous.name.len(), 64);
    volumes.create(&request("named")).unwrap();
    volumes.create(&request("used")).unwrap();
    volumes.acquire("used", "c").unwrap();
    std::fs::write(volumes.data("named").join("x"), [0u8; 10]).unwrap();
    let pruned = volumes.prune(&Filters::default(), false).unwrap();
    assert_eq!(pruned.volumes_deleted, Some(vec![anonymous.name]));
    let pruned = volumes.prune(&filters(r#"{"all":["true"]}"#), false).unwrap();
    assert_eq!(pruned.volumes_deleted, Some(vec!["named".to_owned()]));
    assert_eq!(pruned.space_reclaimed, 10);
    assert_eq!(volumes.list(&Filters::default()).unwrap().len(), 1);
    assert!(volumes.list(&filters(r#"{"wat":["1"]}"#)).is_err());
}

#[test]
fn driver_options_are_read_as_mounts() {
    let options = |pairs: &[(&str, &str)]| {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        MountOptions::parse(&map)
    };
    assert!(options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,noexec")]).is_ok());
    assert_eq!(
        options(&[("o", "bind")]).unwrap_err().to_string(),
        "missing required option: \"device\""
    );
    assert_eq!(
        options(&[("device", "x")]).unwrap_err().to_string(),
        "missing required option: \"type\""
    );
    assert_eq!(options(&[("sizes", "1")]).unwrap_err().to_string(), "invalid option: \"sizes\"");
}

#[test]
fn a_device_is_mounted_by_the_first_and_unmounted_by_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let inside = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let volumes = Local::open(dir.path()).unwrap();
        let pairs = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=64k,mode=700")];
        let driver_opts = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        volumes
            .create(&api::VolumeCreateRequest { driver_opts: Some(driver_opts), ..request("tmp") })
            .unwrap();
        let data = volumes.mount("tmp", "c1").unwrap();
        assert_eq!(volumes.mount("tmp", "c2").unwrap(), data);
        assert!(mount::is_mounted(&data));
        volumes.unmount("tmp", "c1").unwrap();
        assert!(mount::is_mounted(&data));
        volumes.unmount("tmp", "c2").unwrap();
        assert!(!mount::is_mounted(&data));
        volumes.remove("tmp", false).unwrap();
    });
    inside.join().unwrap();
}

#[test]
fn copy_up_keeps_what_the_image_has() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = dir.path().join("rootfs");
    let source = rootfs.join("var/lib/app");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(source.join("sub/file"), "content").unwrap();
    std::fs::set_permissions(source.join("sub/file"), PermissionsExt::from_mode(0o4750)).unwrap();
    std::fs::hard_link(source.join("sub/file"), source.join("twin")).unwrap();
    symlink("/etc/shadow", source.join("link")).unwrap();
    chown(&source, Some(1234), Some(2345)).unwrap();
    std::fs::set_permissions(&source, PermissionsExt::from_mode(0o750)).unwrap();
    // The image says /data -> /var/lib/app, absolute: inside the root it means the same directory.
    symlink("/var/lib/app", rootfs.join("data")).unwrap();
    let volumes = Local::open(dir.path()).unwrap();
    volumes.create(&request("v1")).unwrap();
    volumes.copy_up("v1", &rootfs, "/data").unwrap();
    let data = volumes.data("v1");
    let top = data.metadata().unwrap();
    assert_eq!((top.uid(), top.gid(), top.mode() & 0o7777), (1234, 2345, 0o750));
    assert_eq!(std::fs::read_to_string(data.join("twin")).unwrap(), "content");
    let (file, twin) =
        (data.join("sub/file").metadata().unwrap(), data.join("twin").metadata().unwrap());
    assert_eq!((file.ino(), file.mode() & 0o7777), (twin.ino(), 0o4750));
    assert_eq!(std::fs::read_link(data.join("link")).unwrap().to_str(), Some("/etc/shadow"));
    // Not twice, and not over what is there.
    std::fs::remove_file(data.join("twin")).unwrap();
    volumes.copy_up("v1", &rootfs, "/data").unwrap();
    assert!(!data.join("twin").exists());
    volumes.create(&request("v2")).unwrap();
    volumes.copy_up("v2", &rootfs, "/nowhere").unwrap();
    assert_eq!(std::fs::read_dir(volumes.data("v2")).unwrap().count(), 0);
}

#[test]
fn a_volume_is_replaced_by_its_copy_only_under_one_container() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = dir.path().join("rootfs");
    std::fs::create_dir_all(rootfs.join("data")).unwrap();
    std::fs::write(rootfs.join("data/file"), "content").unwrap();
    let volumes = Local::open(dir.path()).unwrap();
    for (name, users) in [("one", 1), ("two", 2)] {
        volumes.create(&request(name)).unwrap();
        let data = volumes.data(name);
        // What an engine that was killed had come to.
        let cut_short = dir.path().join("volumes").join(name).join("_filling");
        std::fs::create_dir(&cut_short).unwrap();
        std::fs::write(cut_short.join("half"), "con").unwrap();
        for user in 0..users {
            volumes.mount(name, &user.to_string()).unwrap();
        }
        let before = data.metadata().unwrap().ino();
        volumes.copy_up(name, &rootfs, "/data").unwrap();
        assert_eq!(std::fs::read_to_string(data.join("file")).unwrap(), "content");
        assert!(!data.join("half").exists());
        assert_eq!(data.metadata().unwrap().ino() == before, users == 2);
        assert_eq!(cut_short.exists(), users == 2);
    }
}

fn few() -> proptest::prelude::ProptestConfig {
    let usual = proptest::prelude::ProptestConfig::default();
    proptest::prelude::ProptestConfig { cases: usual.cases / 16, ..usual }
}

proptest::proptest! {
    // Each writes files.
    #![proptest_config(few())]

    #[test]
    fn a_damaged_record_costs_its_volume_only(
        at: usize,
        cut in 0_usize..9,
        word in 0..WORDS.len(),
        torn: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let volumes = dir.path().join("volumes");
        let record = |name: &str| volumes.join(name).join("volume.json");
        for name in ["good", "other"] {
            std::fs::create_dir_all(volumes.join(name).join("_data")).unwrap();
            std::fs::write(record(name), RECORD).unwrap();
        }
        let mut text = RECORD.as_bytes().to_vec();
        let at = at % (text.len() + 1);
        text.splice(at..(at + cut).min(text.len()), WORDS[word].bytes());
        if torn {
            text.truncate(at);
        }
        std::fs::write(record("other"), text).unwrap();
        let local = Local::open(dir.path()).unwrap();
        proptest::prop_assert_eq!(&local.get("good").unwrap().name, "good");
        if let Ok(volume) = local.get("other") {
            proptest::prop_assert_eq!(volume.name, "other");
        }
        // What cannot be read may still be somebody's.
        proptest::prop_assert!(volumes.join("other/_data").exists());
    }
}

const RECORD: &str = r#"{"version":1,"created":"2024-01-01T00:00:00Z","labels":{"a":"b"},"options":{"type":"tmpfs","device":"t"}}"#;
const WORDS: &[&str] = &["null", "[]", "{}", "2", "-1", ",", "\"", "\0", "../x"];

proptest::proptest! {
    #[test]
    fn a_name_is_what_dockerds_pattern_matches(name in "[a-zA-Z0-9_./é -]{0,5}|[a-z]{250,260}") {
        let pattern = regex::Regex::new("^[a-zA-Z0-9][a-zA-Z0-9_.-]+$").unwrap();
        let wanted = pattern.is_match(&name) && name.len() <= 255;
        proptest::prop_assert_eq!(super::local::check_name(&name).is_ok(), wanted);
    }
}
