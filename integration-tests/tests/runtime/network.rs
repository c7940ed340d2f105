//! Devices that move into the container (`linux.netDevices`). All of it in namespaces of the test's own.

use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr};
use crate::holder::Holder;

/// A container that shows what it has, and a host of its own with one end of a pair.
fn with_device(devices: Value, more: &str) -> (Bundle, Holder) {
    let mut bundle = Bundle::new("ip address show");
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/ip")).unwrap();
    bundle.linux()["netDevices"] = devices;
    let pair = "ip link add one type veth peer name other; ip link set lo up";
    (bundle, Holder::new("net", &format!("{pair}; {more}")))
}

fn links(holder: &Holder) -> String {
    let mut command = Command::new("ip");
    command.args(["-o", "address", "show"]);
    let output = holder.output(&command);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_device_moves_with_its_addresses_and_takes_a_new_name() {
    let devices = json!({"one": {"name": "inside"}});
    let more = "ip link set one mtu 1234 address 00:11:22:33:44:55 up; \
                ip address add 192.0.2.7/24 dev one; \
                ip address add 192.0.2.9/32 scope link dev one";
    let (bundle, holder) = with_device(devices, more);
    let output = holder.run(&bundle);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(": inside@"), "{text}{}", stderr(&output));
    assert!(text.contains("inet 192.0.2.7/24"), "{text}");
    // Only what has a meaning elsewhere goes along.
    assert!(!text.contains("192.0.2.9"), "{text}");
    assert!(text.contains("mtu 1234") && text.contains("00:11:22:33:44:55"), "{text}");
    assert!(text.lines().any(|line| line.contains("inside") && line.contains("UP")), "{text}");
    assert!(!links(&holder).contains(": one"), "{}", links(&holder));
}

#[test]
fn an_address_of_ip_6_goes_along_too() {
    if !ours_only() {
        // runc 1.5 takes the device down before it looks, which costs it these.
        return;
    }
    let more = "ip link set one up; ip address add 2001:db8::7/64 dev one nodad";
    let (bundle, holder) = with_device(json!({"one": {}}), more);
    let output = holder.run(&bundle);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("inet6 2001:db8::7/64"), "{text}{}", stderr(&output));
    assert!(text.contains(": one@"), "{text}");
}

#[test]
fn a_namespace_that_was_there_before_keeps_the_device() {
    let (mut bundle, holder) = with_device(json!({"one": {}}), "ip address add 192.0.2.7 dev one");
    let target = Holder::new("net", "ip link set lo up");
    for namespace in bundle.linux()["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "network" {
            namespace["path"] = json!(target.namespace("net"));
        }
    }
    let output = holder.run(&bundle);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(links(&target).contains(" one    inet 192.0.2.7/32"), "{}", links(&target));
    assert!(!links(&holder).contains(" one "), "{}", links(&holder));
}

#[test]
fn a_user_namespace_gets_a_device_too() {
    let (mut bundle, holder) = with_device(json!({"one": {}}), "ip address add 192.0.2.7 dev one");
    bundle.use_user_namespace();
    let output = holder.run(&bundle);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("inet 192.0.2.7/32"), "{text}{}", stderr(&output));
}

#[test]
fn devices_that_cannot_move_are_told_in_runcs_words() {
    for (devices, words) in [
        (
            json!({"none": {}}),
            "link not found for interface none on runtime namespace: Link not found",
        ),
        (json!({"one": {"name": "a/b"}}), "invalid network device name"),
        (json!({"a b": {}}), "invalid network device name"),
        (json!({"one": {"name": "lo"}}), "file exists"),
    ] {
        let (bundle, holder) = with_device(devices.clone(), "true");
        let output = holder.run(&bundle);
        assert_eq!(output.status.code(), Some(1), "{devices}");
        assert!(stderr(&output).contains(words), "{devices}: {}", stderr(&output));
        assert!(!bundle.root().join(&bundle.id).exists());
    }
    let (mut bundle, holder) = with_device(json!({"one": {}}), "true");
    let namespaces = bundle.linux()["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    let output = holder.run(&bundle);
    let words = "unable to move network devices without a NET namespace";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}
