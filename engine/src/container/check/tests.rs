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

/// A host's part of a request, some of it wrong.
const HOST: &str = r#"{"Memory":8388608,"MemorySwap":16777216,"MemoryReservation":7340032,"NanoCpus":1000000000,"CpuShares":512,
"CpusetCpus":"0-1","CpusetMems":"0","BlkioWeight":300,"OomScoreAdj":5,"ShmSize":67108864,"MemorySwappiness":10,"PidsLimit":5,
"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2},"NetworkMode":"bridge","PidMode":"","IpcMode":"","UTSMode":"",
"ExtraHosts":["a:1.2.3.4","b:host-gateway","c=[::1]"],"LogConfig":{"Type":"json-file","Config":{"max-size":"1m","max-file":"3",
"compress":"true","tag":"{{.Name}}","labels-regex":"^a","mode":"blocking"}},"Annotations":{"a":"b"},"Isolation":"default"}"#;
const CONFIG: &str = r#"{"WorkingDir":"/w","StopSignal":"SIGTERM","Env":["A=b","C"],"Healthcheck":{"Test":["CMD","x"],
"Interval":1000000,"Timeout":0,"StartPeriod":2000000,"Retries":3},"Hostname":"h"}"#;
const WORDS: &[&str] = &[
    "null",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "-5",
    "0",
    "1",
    "9223372036854775807",
    "x",
    "always",
    "container:",
    "host",
    "wat",
    "(",
    "{{",
    ",",
    "%",
    "é",
    "1001",
    "no",
    "0-9",
    "non-blocking",
    "[\"x\"]",
    "[\"=b\"]",
    "7340032",
];

/// Where its members are, at every depth.
fn places(document: &serde_json::Value, at: &str) -> Vec<String> {
    let members = document.as_object().into_iter().flatten();
    members.fold(Vec::new(), |mut all, (name, member)| {
        let place = format!("{at}/{name}");
        all.extend(places(member, &place));
        all.push(place);
        all
    })
}

/// Puts words in the places of members.
fn damaged(text: &str, edits: &[(usize, usize)]) -> Vec<u8> {
    let mut document: serde_json::Value = serde_json::from_str(text).unwrap();
    for (at, word) in edits {
        let all = places(&document, "");
        let word = WORDS[*word];
        let word = serde_json::from_str(word).unwrap_or_else(|_| word.into());
        *document.pointer_mut(&all[at % all.len()]).unwrap() = word;
    }
    document.to_string().into_bytes()
}

proptest! {
    #[test]
    fn a_damaged_request_is_refused_in_a_sentence_or_in_its_limits(
        edits in proptest::collection::vec((0_usize..10_000, 0..WORDS.len()), 0..4), cgroup2: bool, weights: bool,
    ) {
        let machine = Machine { cgroup2, weights, ..machine() };
        if let Ok(config) = docker_api::from_json::<Config>(&damaged(CONFIG, &edits)) {
            match process(&config) {
                Ok(()) => {
                    prop_assert!(config.working_dir.is_empty() || config.working_dir.starts_with('/'));
                    let health = config.healthcheck.unwrap_or_default();
                    prop_assert!(health.interval.unwrap_or(0) >= 0 && health.retries.unwrap_or(0) >= 0);
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
        let Ok(mut host) = docker_api::from_json::<HostConfig>(&damaged(HOST, &edits)) else { return Ok(()) };
        let mut warnings = vec![];
        let parts: [Checked; 5] = [
            restart(&host),
            resources(&mut host.resources, &mut warnings, &machine),
            modes(&Config::default(), &host, &mut warnings),
            logging(&host, "json-file"),
            platform(&host),
        ];
        for error in parts.iter().filter_map(|part| part.as_ref().err()) {
            prop_assert!(!error.to_string().is_empty() && !error.to_string().contains("panic"));
        }
        if parts[0].is_ok() {
            prop_assert!(host.restart_policy.maximum_retry_count >= 0);
        }
        if parts[1].is_ok() {
            let all = &host.resources;
            prop_assert!(all.memory >= 0 && all.cpu_shares >= 0 && (0..=4_000_000_000).contains(&all.nano_cpus), "{:?}", all);
            prop_assert!(all.blkio_weight == 0 || weights && (10..=1000).contains(&all.blkio_weight), "{:?}", all);
            prop_assert!(!cgroup2 || all.memory_swappiness.is_none(), "{:?}", all);
            let mut again = all.clone();
            prop_assert!(resources(&mut again, &mut vec![], &machine).is_ok());
            prop_assert_eq!(&again, all);
        }
        if parts[2].is_ok() {
            prop_assert!((-1000..=1000).contains(&host.oom_score_adj) && host.shm_size >= 0);
        }
        if parts[3].is_ok() {
            let options = &host.log_config.config;
            prop_assert!(options.get("max-file").is_none_or(|count| count.is_empty() || count.parse::<u32>().is_ok()));
        }
    }
}
