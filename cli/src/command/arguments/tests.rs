//! What is typed, what it comes to, and what is said of mistakes.

use super::*;
use proptest::prelude::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn reading(text: &str) -> Reading {
    read(&words(text), &crate::command::grammar())
}

#[track_caller]
fn mistake(text: &str) -> (String, u8) {
    match reading(text) {
        Reading::Mistake { text, code } => (text, code),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_way_to_write_a_flag_comes_to_one_form() {
    for (typed, meant) in [
        ("docker container ls -a", "docker ps --all --"),
        ("docker -H unix:///x image rm y", "docker --host=unix:///x rmi -- y"),
        ("docker container run busybox image ls", "docker run -- busybox image ls"),
        ("docker run --rm=true --read-only=false x", "docker run --rm -- x"),
        // Left out or not: the engine has a default of its own.
        ("docker run --init=false x", "docker run --init=false -- x"),
        ("docker run --init x", "docker run --init=true -- x"),
        ("docker run --rm -it --rm=false x -it", "docker run --interactive --tty -- x -it"),
        (
            "docker run --name -x -eA=1 -e B -e=C y",
            "docker run --name=-x --env=A=1 --env=B --env=C -- y",
        ),
        ("docker run -it=false x", "docker run --interactive -- x"),
        ("docker run --name a --name b x", "docker run --name=b -- x"),
        ("docker attach --sig-proxy=0 x", "docker attach --sig-proxy=false -- x"),
        ("docker attach x --sig-proxy", "docker attach --sig-proxy=true -- x"),
        ("docker exec x -- ls -l", "docker exec -- x -- ls -l"),
        ("docker stop --time 3 x", "docker stop --timeout=3 -- x"),
        ("docker image inspect x", "docker image-inspect -- x"),
        ("docker volume list -q", "docker volume-ls --quiet --"),
        ("docker container update -m 5m x", "docker update --memory=5m -- x"),
    ] {
        match reading(typed) {
            Reading::Command { canonical, .. } => {
                assert_eq!(canonical, words(meant), "{typed}")
            }
            other => panic!("{typed}: {other:?}"),
        }
    }
}

#[test]
fn mistakes_in_flags_are_told_in_the_stock_clients_words() {
    for (typed, line, usage) in [
        ("docker run --nope x", "unknown flag: --nope", "docker run"),
        ("docker ps -aqZ", "unknown shorthand flag: 'Z' in -Z", "docker ps"),
        ("docker container ls -Zq", "unknown shorthand flag: 'Z' in -Zq", "docker container ls"),
        ("docker run --name", "flag needs an argument: --name", "docker run"),
        ("docker ps -qn", "flag needs an argument: 'n' in -n", "docker ps"),
        ("docker ps --=x", "bad flag syntax: --=x", "docker ps"),
        (
            "docker ps --all=maybe",
            "invalid argument \"maybe\" for \"-a, --all\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            "docker ps",
        ),
        ("docker --nope", "unknown flag: --nope", "docker"),
    ] {
        let (text, code) = mistake(typed);
        assert_eq!(text.lines().next(), Some(line), "{typed}");
        assert!(text.contains(&format!("\n\nUsage:  {usage} [OPTIONS]")), "{text}");
        assert!(
            text.ends_with(&format!("\n\nRun '{usage} --help' for more information")),
            "{text}"
        );
        assert_eq!(code, 125);
    }
}

#[test]
fn too_few_and_too_many_words_are_counted() {
    for (typed, line) in [
        ("docker run", "docker: 'docker run' requires at least 1 argument"),
        ("docker exec x", "docker: 'docker exec' requires at least 2 arguments"),
        ("docker logs", "docker: 'docker logs' requires 1 argument"),
        ("docker tag a", "docker: 'docker tag' requires 2 arguments"),
        ("docker images a b", "docker: 'docker images' requires at most 1 argument"),
        ("docker container ps x", "docker: 'docker container ls' accepts no arguments"),
    ] {
        let (text, code) = mistake(typed);
        assert_eq!((text.lines().next(), code), (Some(line), 1), "{typed}");
    }
}

#[test]
fn a_mistyped_command_is_answered_with_the_nearest() {
    assert_eq!(
        mistake("docker log x").0,
        "docker: unknown command: docker log\n\nDid you mean: docker logs?\n\nRun 'docker --help' for more information"
    );
    assert!(mistake("docker iamges").0.contains("docker images?"));
    assert!(mistake("docker container strat x").0.contains("docker container start?"));
    assert!(!mistake("docker build .").0.contains("Did you mean"));
}

#[test]
fn commands_of_a_group_are_none_without_it() {
    assert!(mistake("docker volume-ls").0.starts_with("docker: unknown command: docker volume-ls"));
    assert!(!mistake("docker volume-l").0.contains("volume-ls"));
    assert_eq!(reading("docker volume"), Reading::Nothing(Some("volume".to_owned())));
}

#[test]
fn a_long_dash_is_named() {
    for typed in ["docker run –it busybox", "docker ps —all", "docker –version"] {
        assert!(mistake(typed).0.contains("begins with a long dash"), "{typed}");
    }
    assert!(matches!(reading("docker run busybox echo –x"), Reading::Command { .. }));
}

proptest! {
    // The grammar of all commands is large.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn what_was_read_reads_the_same_again(typed in proptest::collection::vec(
        "(run|ps|image|container|exec|rm|help|x|busybox)|-(it|p|p=80|p80|h|v|H|-rm|-rm=x|-name|-name=a|-no-such|-help|)|--|-{0,3}[a-z=é]{0,3}", 0..7),
    ) {
        let root = crate::command::grammar();
        let words: Vec<String> = std::iter::once("docker".to_owned()).chain(typed).collect();
        if let Reading::Command { canonical, .. } = read(&words, &root) {
            match read(&canonical, &root) {
                Reading::Command { canonical: again, .. } => prop_assert_eq!(again, canonical),
                other => prop_assert!(false, "{:?}: {:?}", canonical, other),
            }
        }
    }
}
