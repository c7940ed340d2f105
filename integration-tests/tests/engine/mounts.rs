//! The container's own file system: read-only root, tmpfs, /dev/shm, devices, masked paths.

use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::{output, run, shell, with};

fn host(script: &str, host: Value) -> Value {
    with(shell(script), json!({"HostConfig": host}))
}

#[test]
fn a_read_only_root_is_written_only_where_tmpfs_is() {
    let stack = lease();
    let options =
        json!({"ReadonlyRootfs": true, "Tmpfs": {"/scratch": "size=1m,mode=1777,noexec"}});
    let (code, _, err) = run(&stack, &host("echo x > /file", options.clone()));
    assert!(code != 0 && err.contains("Read-only file system"), "{err}");
    let shown = output(
        &stack,
        &host("echo x > /scratch/f && cat /scratch/f; grep ' /scratch ' /proc/mounts", options),
    );
    let (first, mount) = shown.split_once('\n').unwrap();
    assert_eq!(first, "x");
    for option in ["size=1024k", "noexec", "nosuid", "nodev", "tmpfs"] {
        assert!(mount.contains(option), "{option}: {mount}");
    }
}

#[test]
fn shared_memory_has_the_size_it_was_given() {
    let stack = lease();
    let size = |options| {
        output(&stack, &host("df -k /dev/shm | tail -1 | xargs | cut -d' ' -f2", options))
    };
    assert_eq!(size(json!({})), "65536");
    assert_eq!(size(json!({"ShmSize": 134_217_728})), "131072");
}

#[test]
fn devices_are_the_default_ones_and_those_that_were_given() {
    let stack = lease();
    let listed = output(&stack, &host("ls /dev | xargs", json!({})));
    for name in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue",
        "stdin", "fd",
    ] {
        assert!(listed.split(' ').any(|found| found == name), "{name}: {listed}");
    }
    assert!(!listed.contains("kmsg"), "{listed}");
    let device = json!({"Devices": [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero0",
        "CgroupPermissions": "r"}]});
    let read =
        output(&stack, &host("ls -l /dev/zero0 | cut -c1; head -c 3 /dev/zero0 | wc -c", device));
    assert_eq!(read, "c\n3");
    // Without the device, making one's own does not help.
    let (code, _, err) = run(&stack, &host("mknod /tmp/k c 1 11 && head -c 1 /tmp/k", json!({})));
    assert!(code != 0 && err.contains("Operation not permitted"), "{err}");
    let missing = json!({"Devices": [{"PathOnHost": "/dev/nope", "PathInContainer": "/dev/nope", "CgroupPermissions": "rwm"}]});
    let id = stack.api().create("", &host("true", missing));
    let refused = stack.api().post(&format!("/containers/{id}/start"));
    assert!(refused.status >= 400 && refused.message().contains("error gathering device information while adding custom device \"/dev/nope\": no such file or directory"), "{}", refused.text());
}

#[test]
fn what_is_not_the_containers_business_is_masked() {
    let stack = lease();
    let shown = output(
        &stack,
        &host(
            "for f in kcore keys timer_list; do if [ -e /proc/$f ]; then wc -c < /proc/$f; fi; done | sort -u; ls /proc/scsi 2>/dev/null | wc -l; grep ' /proc/sys ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1; grep ' /sys ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1",
            json!({}),
        ),
    );
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["0", "0", "ro", "ro"]);
}

#[test]
fn files_of_the_engine_are_mounted_and_writable() {
    let stack = lease();
    let shown = output(
        &stack,
        &host(
            "for f in hosts hostname resolv.conf; do echo '# x' >> /etc/$f && grep -c \" /etc/$f \" /proc/mounts; done",
            json!({}),
        ),
    );
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["1", "1", "1"]);
}

#[test]
fn the_layers_below_stay_as_they_were() {
    let stack = lease();
    let (code, _, _) = run(&stack, &host("rm -r /var/www; echo changed > /etc/passwd", json!({})));
    assert_eq!(code, 0);
    assert_eq!(
        output(&stack, &host("cat /var/www/index.html; head -1 /etc/passwd", json!({}))),
        "made by a private stack\nroot:x:0:0:root:/root:/bin/sh"
    );
}
