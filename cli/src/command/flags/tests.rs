//! Values as they are typed, right and wrong.

use super::*;
use proptest::prelude::*;

#[test]
fn ports_are_read_in_all_their_forms() {
    for (text, key, binding) in [
        ("80", "80/tcp", ("", "")),
        ("8080:80", "80/tcp", ("", "8080")),
        ("127.0.0.1:8080:80/udp", "80/udp", ("127.0.0.1", "8080")),
        ("127.0.0.1::80", "80/tcp", ("127.0.0.1", "")),
        ("[::1]:8080:80", "80/tcp", ("::1", "8080")),
        ("8000-9000:80", "80/tcp", ("", "8000-9000")),
    ] {
        let ports = ports(&[text.to_owned()]).unwrap();
        let expected = vec![(binding.0.to_owned(), binding.1.to_owned())];
        assert_eq!(ports.bindings.get(key), Some(&expected), "{text}");
    }
}

#[test]
fn ranges_of_one_length_are_paired() {
    let ports = ports(&["7000-7002:8000-8002".to_owned()]).unwrap();
    assert_eq!(ports.exposed, ["8000/tcp", "8001/tcp", "8002/tcp"]);
    assert_eq!(ports.bindings["8002/tcp"], [(String::new(), "7002".to_owned())]);
}

#[test]
fn a_wrong_port_is_refused() {
    for text in ["x", "80/ftp", "1.2.3.4.5:80:80", "70000:80", "7000-7002:80-81", "2-1"] {
        assert!(ports(&[text.to_owned()]).is_err(), "{text}");
    }
}

#[test]
fn cpus_are_billionths() {
    assert_eq!(cpus("1.5"), Ok(1_500_000_000));
    assert_eq!(cpus(".25"), Ok(250_000_000));
    assert_eq!(cpus("2"), Ok(2_000_000_000));
    assert!(cpus("x").is_err());
}

#[test]
fn a_device_names_its_place_and_permissions() {
    let read = |text: &str| {
        let device = device(text).unwrap();
        (device.path_on_host, device.path_in_container, device.cgroup_permissions)
    };
    let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(read("/dev/x"), owned("/dev/x", "/dev/x", "rwm"));
    assert_eq!(read("/dev/x:r"), owned("/dev/x", "/dev/x", "r"));
    assert_eq!(read("/dev/x:/dev/y:rw"), owned("/dev/x", "/dev/y", "rw"));
    assert_eq!(device("/dev/x:/dev/y:q").unwrap_err().to_string(), "bad mode specified: q");
}

proptest! {
    #[test]
    fn published_ports_are_as_many_as_their_range(
        address in "(|127.0.0.1:|\\[::1\\]:|x:)",
        host in "(|[0-9+-]{0,7}:)",
        container in "[0-9+-]{0,7}",
        protocol in "(|/tcp|/udp|/x)",
    ) {
        let Ok(read) = ports(&[format!("{address}{host}{container}{protocol}")]) else { return Ok(()) };
        let (first, last) = container.split_once('-').unwrap_or((&container, &container));
        let count = last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1;
        prop_assert_eq!(read.exposed.len(), count);
        prop_assert_eq!(read.bindings.len(), count);
        prop_assert!(!container.contains('+') && !host.contains('+'));
    }

    #[test]
    fn a_fraction_of_a_cpu_is_digits(
        whole in 0_i64..9_000_000_000,
        fraction in "[0-9]{0,9}",
        broken in "[0-9.+-]{0,12}",
    ) {
        let billionths: i64 = format!("{fraction:0<9}").parse().unwrap();
        prop_assert_eq!(cpus(&format!("{whole}.{fraction}")), Ok(whole * 1_000_000_000 + billionths));
        if cpus(&broken).is_ok() {
            let fraction = broken.split_once('.').map_or("", |(_, fraction)| fraction);
            prop_assert!(fraction.bytes().all(|byte| byte.is_ascii_digit()), "{}", broken);
        }
    }

    #[test]
    fn what_is_typed_is_taken_whole_or_refused(
        text in "[a-z0-9/:=.,+ \\[\\]-]{0,14}|(nofile|core)=[-0-9:]{0,9}|/dev/a:[0-9a-z+]{0,8}|[abc] [0-9*]{0,3}:[0-9*]{0,3} [rwmx]{0,4}",
    ) {
        for check in [label, extra_host, filter, sysctl, link, device_rule] {
            if let Ok(taken) = check(&text) {
                prop_assert!(taken.len() <= text.len() + 1);
            }
        }
        if let Ok(limit) = ulimit(&text) {
            prop_assert!(limit.hard == -1 || (limit.soft != -1 && limit.soft <= limit.hard));
        }
        if let Ok(device) = device(&text) {
            prop_assert!(text.starts_with(&device.path_on_host));
            prop_assert!(device.cgroup_permissions.chars().all(|letter| "rwm".contains(letter)));
        }
        prop_assert!(volume(&text).is_err() || (1..=3).contains(&text.split(':').count()));
        prop_assert!(memory(&text).is_err() || swap(&text).is_ok());
        prop_assert!(duration(&text).is_ok() || duration(&text).is_err_and(|why| why.starts_with("time: ")));
        std::hint::black_box((device_weight(&text).is_ok(), device_bytes(&text).is_ok(), device_operations(&text).is_ok(), restart_policy(&text).is_ok(), exposed(&text).is_ok(), address(&text).is_ok()));
    }

    #[test]
    fn a_file_of_variables_has_names(text in "([#=a-zA-Z_ \t\u{e9}]{0,8}[\n\r]{0,2}){0,6}") {
        let Ok(lines) = lines_of("f", &text) else { return Ok(()) };
        prop_assert!(lines.len() <= text.lines().count());
        for line in lines {
            let name = line.split('=').next().unwrap();
            prop_assert!(!name.is_empty() && !name.contains(char::is_whitespace) && !name.starts_with('#'));
        }
    }
}
