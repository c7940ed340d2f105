use proptest::prelude::*;

use super::*;

/// What is said, and what is wrong.
type Row<T> = (&'static str, fn(&mut T));

fn machine() -> Machine {
    Machine {
        cgroup2: false,
        cpus: "0-3".to_owned(),
        mems: "0".to_owned(),
        count: 4,
        weights: true,
    }
}

#[test]
fn limits_out_of_range_are_refused_in_dockerds_words() {
    let table: &[Row<Resources>] = &[
        ("Minimum memory limit allowed is 6MB", |all| all.memory = 5),
        ("Minimum memory limit allowed is 6MB", |all| all.memory = -5),
        ("Minimum memory reservation allowed is 6MB", |all| all.memory_reservation = 5),
        ("Minimum memory limit can not be less than memory reservation limit, see usage", |all| {
            all.memory = 10 << 20;
            all.memory_reservation = 20 << 20;
        }),
        ("Invalid value: 101, valid memory swappiness range is 0-100", |all| {
            all.memory_swappiness = Some(101);
        }),
        ("range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available", |all| {
            all.nano_cpus = 5_000_000_000;
        }),
        ("invalid CPU shares (-1): value must be a positive integer", |all| {
            all.cpu_shares = -1;
        }),
        (
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            |all| {
                all.cpu_period = 5;
            },
        ),
        ("CPU cfs quota can not be less than 1ms (i.e. 1000)", |all| all.cpu_quota = 5),
        ("cpu real-time runtime cannot be higher than cpu real-time period", |all| {
            all.cpu_realtime_period = 100;
            all.cpu_realtime_runtime = 500;
        }),
        ("Requested CPUs are not available - requested 99, available: 0-3", |all| {
            all.cpuset_cpus = "99".to_owned();
        }),
        ("Invalid value a for cpuset cpus: invalid format: a", |all| {
            all.cpuset_cpus = "a".to_owned();
        }),
        ("Requested memory nodes are not available - requested 9, available: 0", |all| {
            all.cpuset_mems = "9".to_owned();
        }),
        ("Range of blkio weight is from 10 to 1000", |all| all.blkio_weight = 5),
        ("invalid option: QoS maximum IOPs configuration is not supported on linux", |all| {
            all.io_maximum_iops = 5;
        }),
    ];
    for (words, change) in table {
        let mut all = Resources::default();
        change(&mut all);
        let error = resources(&mut all, &mut vec![], &machine()).unwrap_err();
        assert_eq!(error.to_string(), *words);
    }
}

#[test]
fn what_is_discarded_is_told() {
    let mut all = Resources {
        blkio_weight: 300,
        cpu_percent: 5,
        cpu_count: 1,
        kernel_memory: Some(1 << 23),
        ..Resources::default()
    };
    let mut warnings = vec![];
    resources(&mut all, &mut warnings, &Machine { weights: false, ..machine() }).unwrap();
    assert_eq!(warnings.len(), 4);
    assert_eq!(all, Resources { blkio_weight_device: None, ..Resources::default() });
}

#[test]
fn lists_of_processors_are_read() {
    assert_eq!(ranges("7,1-2,0"), Some(vec![(0, 2), (7, 7)]));
    assert_eq!(ranges(""), Some(vec![]));
    assert_eq!(ranges("2-1"), None);
    assert_eq!(ranges("a"), None);
}

#[test]
fn another_containers_network_brings_its_own_settings() {
    let host = |change: fn(&mut HostConfig)| {
        let mut host =
            HostConfig { network_mode: "container:x".to_owned(), ..HostConfig::default() };
        change(&mut host);
        modes(&Config::default(), &host, &mut vec![]).map_err(|error| error.to_string())
    };
    assert_eq!(host(|_| ()), Ok(()));
    let table: &[Row<HostConfig>] = &[
        ("dns and the network mode", |host| host.dns = Some(vec!["1.1.1.1".to_owned()])),
        ("custom host-to-IP mapping and the network mode", |host| {
            host.extra_hosts = Some(vec!["a:1.1.1.1".to_owned()]);
        }),
        ("port publishing and the container type network mode", |host| {
            host.publish_all_ports = true;
        }),
    ];
    for (words, change) in table {
        assert_eq!(host(*change), Err(format!("conflicting options: {words}")));
    }
}

#[test]
fn options_of_the_log_are_checked() {
    let options = |pairs: &[(&str, &str)]| {
        let mut host = HostConfig::default();
        host.log_config.config =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        logging(&host, "json-file").map_err(|error| error.to_string())
    };
    assert_eq!(options(&[("max-size", "1m"), ("tag", "{{.Name}}"), ("env-regex", "^A")]), Ok(()));
    assert_eq!(options(&[("max-size", "wat")]), Err("invalid size: 'wat'".to_owned()));
    assert!(options(&[("mode", "non-blocking")]).unwrap_err().contains("not supported yet"));
    assert!(options(&[("mode", "wat")]).unwrap_err().ends_with("not supported: wat"));
    assert!(options(&[("max-buffer-size", "1m")]).is_err());
    assert!(options(&[("tag", "{{.Wat}}")]).unwrap_err().contains("not supported yet"));
}

proptest! {
    #[test]
    fn a_list_of_ranges_is_its_numbers(
        have in proptest::collection::vec((0_u32..12, 0_u32..4), 0..5),
        wanted in proptest::collection::vec((0_u32..12, 0_u32..4), 0..5),
        broken in "[0-9,+ -]{0,12}",
    ) {
        let text = |list: &[(u32, u32)]| {
            let parts = list.iter().map(|(low, more)| if *more == 0 { low.to_string() } else { format!("{low}-{}", low + more) });
            parts.collect::<Vec<_>>().join(",")
        };
        let numbers = |list: &[(u32, u32)]| -> std::collections::BTreeSet<u32> {
            list.iter().flat_map(|(low, more)| *low..=low + more).collect()
        };
        let (own, asked) = (ranges(&text(&have)).unwrap(), ranges(&text(&wanted)).unwrap());
        prop_assert_eq!(covers(&own, &asked), numbers(&wanted).is_subset(&numbers(&have)));
        prop_assert!(own.len() <= have.len() && own.is_sorted());
        if let Some(read) = ranges(&broken) {
            prop_assert!(read.iter().all(|(low, high)| low <= high && *high <= 1 << 16));
        }
    }
}

#[test]
fn a_list_costs_no_more_than_its_text() {
    let text = "0-65536,".repeat(100_000);
    assert_eq!(ranges(&text), Some(vec![(0, 65_536)]));
}
