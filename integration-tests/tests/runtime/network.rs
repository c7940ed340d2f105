//! Devices that move into the container (`linux.netDevices`). All of it in namespaces of the test's own.

use std::process::Command;

use integration_tests::parts::busybox;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr};
use crate::holder::Holder;

/// A container that shows what it has, and a host of its own with one end of a pair.
fn with_device(devices: Value, more: &'static [&'static str]) -> (Bundle, Holder) {
    let mut bundle = Bundle::new("ip address show");
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/ip")).unwrap();
    bundle.linux()["netDevices"] = devices;
    let holder = Holder::network(move || {
        make_pair("one", "other").unwrap();
        for line in more {
            let status = ip(line).status().unwrap();
            assert!(status.success(), "{line}");
        }
    });
    (bundle, holder)
}

fn ip(line: &str) -> Command {
    let mut command = Command::new(busybox());
    command.arg("ip").args(line.split(' '));
    command
}

fn links(holder: &Holder) -> String {
    String::from_utf8(holder.output(ip("-o address show")).stdout).unwrap()
}

/// Two devices that are each other's other end, by one request to the kernel (rtnetlink(7)): not
/// every `ip` can make them.
fn make_pair(one: &str, other: &str) -> std::io::Result<()> {
    const IFNAME: u16 = 3;
    const LINKINFO: u16 = 18;
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    const PEER: u16 = 1;
    let attribute = |kind: u16, value: &[u8]| {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let name = |name: &str| attribute(IFNAME, &[name.as_bytes(), &[0]].concat());
    let head = [0; 16];
    let peer = attribute(PEER, &[&head[..], &name(other)].concat());
    let info = [attribute(KIND, b"veth"), attribute(DATA, &peer)].concat();
    let body = [&head[..], &name(one), &attribute(LINKINFO, &info)].concat();
    let length = u32::try_from(body.len() + 16).unwrap();
    // A new link, to be acknowledged.
    let request = [length, 16 | 0x605 << 16, 1, 0];
    let request: Vec<u8> = request.iter().flat_map(|word| word.to_ne_bytes()).chain(body).collect();
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0; 4096];
    rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    match i32::from_ne_bytes(answer[16..20].try_into().unwrap()) {
        0 => Ok(()),
        errno => Err(std::io::Error::from_raw_os_error(-errno)),
    }
}

#[test]
fn a_device_moves_with_its_addresses_and_takes_a_new_name() {
    let devices = json!({"one": {"name": "inside"}});
    let more = &[
        "link set one mtu 1234",
        "link set one address 00:11:22:33:44:55",
        "link set one up",
        "address add 192.0.2.7/24 dev one",
        "address add 192.0.2.9/32 scope link dev one",
    ];
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
    let more = &["link set one up", "address add 2001:db8::7/64 dev one"];
    let (bundle, holder) = with_device(json!({"one": {}}), more);
    let output = holder.run(&bundle);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("inet6 2001:db8::7/64"), "{text}{}", stderr(&output));
    assert!(text.contains(": one@"), "{text}");
}

#[test]
fn a_namespace_that_was_there_before_keeps_the_device() {
    let (mut bundle, holder) = with_device(json!({"one": {}}), &["address add 192.0.2.7 dev one"]);
    let target = Holder::network(|| ());
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
    let (mut bundle, holder) = with_device(json!({"one": {}}), &["address add 192.0.2.7 dev one"]);
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
        let (bundle, holder) = with_device(devices.clone(), &[]);
        let output = holder.run(&bundle);
        assert_eq!(output.status.code(), Some(1), "{devices}");
        assert!(stderr(&output).contains(words), "{devices}: {}", stderr(&output));
        assert!(!bundle.root().join(&bundle.id).exists());
    }
    let (mut bundle, holder) = with_device(json!({"one": {}}), &[]);
    let namespaces = bundle.linux()["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    let output = holder.run(&bundle);
    let words = "unable to move network devices without a NET namespace";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}
