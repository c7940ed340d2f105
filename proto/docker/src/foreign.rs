//! Bodies and parameters as broken as a client can send them: an error or a value, never a panic.

use proptest::prelude::*;

use crate::container::{CreateRequest, HostConfig};
use crate::filters::Filters;
use crate::progress::{Detail, ErrorDetail, Message};
use crate::version::ApiVersion;
use crate::{exec, network, time, volume};

/// A body with something of everything that has a form of its own.
const BODY: &str = r#"{"Image":"busybox","Cmd":["sh","-c","x"],"Entrypoint":"a","Env":["A=b"],
"ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},"Labels":{"k":"v"},"StopTimeout":3,"User":"1:2",
"Healthcheck":{"Test":["CMD","true"],"Interval":1000000000},"HostConfig":{"Memory":1,"NanoCpus":2,
"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080-8090"}]},"Binds":["/a:/b:ro"],
"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2},"Ulimits":[{"Name":"nofile","Soft":1}],
"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}},"MaskedPaths":null,"CgroupnsMode":"host"},
"NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAMConfig":{"IPv4Address":"1.2.3.4"}}}}}"#;

/// The words that JSON and Docker give a meaning.
const WORDS: &[&str] =
    &["null", "[]", "{}", "\"\"", "-1", "1e99", "true", ",", "\"", "\\u0000", "[[[["];

/// Gives the members whose names are the API's other letters.
fn recase(
    value: &mut serde_json::Value,
    mask: &mut impl Iterator<Item = bool>,
    swap: &impl Fn((char, bool)) -> char,
) {
    let serde_json::Value::Object(members) = value else { return };
    for (name, mut member) in std::mem::take(members) {
        let own = ["Image", "User", "HostConfig", "Memory"].contains(&name.as_str());
        let cased = name.chars().map(|letter| swap((letter, mask.next() == Some(true))));
        let cased = if own { cased.collect() } else { name.clone() };
        if name == "HostConfig" {
            recase(&mut member, mask, swap);
        }
        members.insert(cased, member);
    }
}

proptest! {
    #[test]
    fn broken_bodies_never_panic(
        edits in proptest::collection::vec((0..BODY.len(), 0_usize..12, 0..WORDS.len()), 1..6),
    ) {
        let mut body = BODY.as_bytes().to_vec();
        for (at, cut, word) in edits {
            let at = at.min(body.len());
            let end = (at + cut).min(body.len());
            body.splice(at..end, WORDS[word].bytes());
        }
        drop(crate::from_json::<HostConfig>(&body));
        drop(crate::from_json::<exec::ExecCreateRequest>(&body));
        drop(crate::from_request::<volume::VolumeCreateRequest>(&body));
        drop(crate::from_request::<network::NetworkCreateRequest>(&body));
        drop(crate::from_json::<Message>(&body));
        if let Ok(request) = crate::from_request::<CreateRequest>(&body) {
            let text = serde_json::to_vec(&request).unwrap();
            let again = crate::from_request::<CreateRequest>(&text).unwrap();
            prop_assert_eq!(serde_json::to_vec(&again).unwrap(), text);
        }
    }

    #[test]
    fn names_of_any_case_are_one_name(
        mask in proptest::collection::vec(any::<bool>(), BODY.len()),
    ) {
        let swap = |(letter, on): (char, bool)| {
            if on { letter.to_ascii_uppercase() } else { letter }
        };
        let mut value: serde_json::Value = serde_json::from_str(BODY).unwrap();
        recase(&mut value, &mut mask.into_iter(), &swap);
        crate::keys::fold_keys(&mut value);
        let once = value.clone();
        crate::keys::fold_keys(&mut value);
        prop_assert_eq!(&value, &once);
        let expected: CreateRequest = crate::from_request(BODY.as_bytes()).unwrap();
        let request: CreateRequest = serde_json::from_value(value).unwrap();
        let own = |request: &CreateRequest| {
            let host = request.host_config.as_ref().map(|host| host.resources.memory);
            (request.config.image.clone(), request.config.user.clone(), host)
        };
        prop_assert_eq!(own(&request), own(&expected));
    }

    #[test]
    fn progress_survives_its_line(
        (id, status, stream) in (proptest::option::of("\\PC{0,6}"), proptest::option::of("\\PC{0,6}"), proptest::option::of("\\PC{0,6}")),
        detail in proptest::option::of((any::<i64>(), any::<i64>())),
        error in proptest::option::of("\\PC{0,6}"),
    ) {
        let message = Message {
            id,
            status,
            stream,
            progress_detail: detail.map(|(current, total)| Detail { current, total, ..Detail::default() }),
            error_detail: error.clone().map(|message| ErrorDetail { code: Some(1), message }),
            error,
            ..Message::default()
        };
        let line = message.to_line();
        prop_assert_eq!(line.matches(['\r', '\n']).count(), 2);
        prop_assert_eq!(crate::from_json::<Message>(line.as_bytes()).unwrap(), message);
    }

    #[test]
    fn versions_survive_their_text(major: u16, minor: u16) {
        let version = ApiVersion::new(major, minor);
        prop_assert_eq!(version.to_string().parse::<ApiVersion>().unwrap(), version);
    }

    #[test]
    fn versions_are_digits_and_a_dot(text in "[0-9+. x-]{0,7}") {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let fits = |part: &str| digits(part) && part.parse::<u16>().is_ok();
        let wanted = text.split_once('.').is_some_and(|(major, minor)| fits(major) && fits(minor));
        prop_assert_eq!(text.parse::<ApiVersion>().is_ok(), wanted);
    }

    #[test]
    fn times_survive_their_text(
        seconds in 0_i64..253_402_300_800,
        nanoseconds in 0_i32..1_000_000_000,
    ) {
        for text in [time::rfc3339_nano(seconds, nanoseconds), time::rfc3339_nano_fixed(seconds, nanoseconds)] {
            prop_assert_eq!(time::parse_rfc3339(&text), Some((seconds, nanoseconds)));
        }
        let unix = format!("{seconds}.{nanoseconds:09}");
        prop_assert_eq!(time::parse_unix(&unix), Some((seconds, nanoseconds)));
    }

    #[test]
    fn durations_are_the_sum_of_their_parts(
        parts in proptest::collection::vec((0_i64..100_000, 0_usize..6), 1..5), negative: bool,
    ) {
        const UNITS: [(&str, i64); 6] = [("ns", 1), ("us", 1_000), ("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000)];
        let mut text = if negative { "-".to_owned() } else { String::new() };
        let mut sum = 0;
        for (number, unit) in parts {
            text.push_str(&format!("{number}{}", UNITS[unit].0));
            sum += number * UNITS[unit].1;
        }
        prop_assert_eq!(time::parse_duration(&text), Some(if negative { -sum } else { sum }));
    }

    #[test]
    fn broken_times_never_panic(text in "[-+0-9.:TZhmsuµn ]{0,40}") {
        std::hint::black_box((time::parse_rfc3339(&text), time::parse_unix(&text), time::parse_duration(&text)));
    }

    #[test]
    fn broken_filters_never_panic(text in r#"[{}\[\]":,a-c0-1 truefalsn\\]{0,40}"#) {
        drop(Filters::parse(&text));
    }

    #[test]
    fn both_forms_of_filters_mean_the_same(
        pairs in proptest::collection::btree_map("[a-z]{1,3}", proptest::collection::btree_map("\\PC{0,6}", any::<bool>(), 0..4), 0..4),
    ) {
        let objects = serde_json::to_string(&pairs).unwrap();
        let lists: std::collections::BTreeMap<_, Vec<_>> = pairs
            .iter()
            .map(|(key, values)| (key, values.iter().filter(|(_, on)| **on).map(|(value, _)| value).collect()))
            .collect();
        let lists = serde_json::to_string(&lists).unwrap();
        prop_assert_eq!(Filters::parse(&objects).unwrap(), Filters::parse(&lists).unwrap(), "{} {}", objects, lists);
    }

    #[test]
    fn filters_survive_their_text(
        pairs in proptest::collection::vec(("[a-z]{1,3}", "\\PC{0,6}"), 0..6),
    ) {
        let mut filters = Filters::default();
        for (key, value) in &pairs {
            filters.add(key, value);
        }
        prop_assert_eq!(Filters::parse(&filters.to_json()).unwrap(), filters);
    }
}
