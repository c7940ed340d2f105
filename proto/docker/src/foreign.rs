//! Bodies and parameters as broken as a client can send them: an error or a value, never a panic.

use proptest::prelude::*;

use crate::container::{CreateRequest, HostConfig};
use crate::exec;
use crate::filters::Filters;

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
        drop(crate::from_json::<CreateRequest>(&body));
        drop(crate::from_json::<HostConfig>(&body));
        drop(crate::from_json::<exec::ExecCreateRequest>(&body));
    }

    #[test]
    fn broken_filters_never_panic(text in r#"[{}\[\]":,a-c0-1 truefalsn\\]{0,40}"#) {
        drop(Filters::parse(&text));
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
