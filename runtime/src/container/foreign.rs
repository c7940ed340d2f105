//! Records, filters and files of the host as nobody wrote them: told, or a state by the kernel.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;
use crate::foreign::{assert_sentence, damaged, fewer, lines, number, text};

/// A record with something of everything that has a form of its own.
fn whole() -> Value {
    json!({
        "runtime": RUNTIME, "version": 1, "id": "c1", "pid": 1, "start_time": 2, "created": "2026-01-02T03:04:05Z",
        "bundle": "/b", "config": "/b/config.json", "rootfs": "/b/rootfs", "annotations": {"a": "b"},
        "hooks": {"prestart": [], "poststop": [{"path": "/p", "args": ["p"], "env": null, "timeout": 3}]},
        "cgroup_paths": {"": "/cg/c1", "memory": "/cg/memory/c1"}, "complete": true, "new_keyring": true,
        "seccomp_flags": 4, "seccomp_notifies": false, "private_pids": true,
        "inherited": {"apparmor_profile": "p", "rlimits": [{"type": "RLIMIT_CPU", "hard": 1, "soft": 1}],
                      "oom_score_adj": 3, "personality": 8, "memory_policy": {"mode": "MPOL_BIND", "nodes": "0"}},
        "resources": {"memory": {"limit": 1048576}, "pids": {"limit": 7}, "unified": {"memory.high": "1"}},
    })
}

#[test]
fn the_document_itself_is_a_record() {
    let record: Record = serde_json::from_value(whole()).unwrap();
    let text = serde_json::to_value(&record).unwrap();
    assert_eq!(text["resources"]["pids"], whole()["resources"]["pids"]);
    let again: Record = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), text);
}

#[test]
fn a_name_that_is_no_text_hides_no_other() {
    let passwd = b"caf\xe9:x:7:7::/:\nweb:x:8:8::/:\n";
    assert_eq!(name_of(&String::from_utf8_lossy(passwd), 8).as_deref(), Some("web"));
}

proptest! {
    #![proptest_config(fewer())]

    #[test]
    fn any_record_is_refused_or_has_a_state(bytes in damaged(Just(whole()))) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("c1")).unwrap();
        fs::write(root.path().join("c1/state.json"), bytes.0).unwrap();
        match Container::load(root.path(), "c1") {
            Err(error) => {
                assert_sentence(error.to_string().trim());
                prop_assert!(Container::list(root.path()).unwrap().is_empty());
            }
            Ok(container) => {
                // None of ours: process 1 did not start when the record says.
                prop_assert_eq!(container.status(), Status::Stopped);
                let shown = serde_json::to_value(container.listed()).unwrap();
                prop_assert_eq!((&shown["pid"], &shown["status"]), (&json!(0), &json!("stopped")));
                let state: Value = serde_json::from_slice(&container.record.hook_state("stopped", 0)).unwrap();
                prop_assert_eq!(&state["id"], &shown["id"]);
                container.save().unwrap();
                let again = Container::load(root.path(), "c1").unwrap();
                prop_assert_eq!(
                    serde_json::to_value(&again.record).unwrap(),
                    serde_json::to_value(&container.record).unwrap(),
                );
                container.remove().unwrap();
                prop_assert!(!container.dir_exists());
            }
        }
    }

    #[test]
    fn any_filter_is_as_many_instructions_as_it_has_room_for(bytes in vec(any::<u8>(), 0..=50)) {
        let root = tempfile::tempdir().unwrap();
        let record = Record { id: "c1".to_owned(), ..Default::default() };
        let (container, _lock) = Container::create(root.path(), record).unwrap();
        fs::write(root.path().join("c1/seccomp.bpf"), &bytes).unwrap();
        let program = container.load_filter().unwrap().unwrap();
        prop_assert_eq!(program.instructions.len(), bytes.len() / 8);
        container.save_filter(&program).unwrap();
        let again = fs::read(root.path().join("c1/seccomp.bpf")).unwrap();
        prop_assert_eq!(again.as_slice(), &bytes[..bytes.len() / 8 * 8]);
    }
}

proptest! {
    #[test]
    fn an_id_is_one_harmless_name(
        id in text(&["a", "0", ".", "..", "/", "-", "_", "+", " ", "\0", "é", "A"], 5),
    ) {
        let components: Vec<_> = Path::new(&id).components().collect();
        let name = matches!(components.as_slice(), [std::path::Component::Normal(name)] if **name == *id);
        let harmless = name && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
        match check_id(&id) {
            Ok(()) => prop_assert!(harmless),
            Err(error) => {
                prop_assert!(!harmless);
                assert_sentence(&error.to_string());
            }
        }
    }

    #[test]
    fn a_process_is_found_behind_any_name(
        name in text(&["(", ")", " ", "Z", "a", "\n", "1"], 6), start in number(), dead: bool,
        broken in lines(&["7", " ", "(", ")", "S", "Z", "-1", "é"]),
    ) {
        let state = if dead { "Z" } else { "S" };
        let stat = format!("7 ({name}) {state} 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0\n");
        prop_assert_eq!(parse_stat(&stat), Some(ProcessStat { dead, start_time: start }));
        parse_stat(&broken);
    }

    #[test]
    fn a_user_has_the_name_of_the_first_line_that_is_one(
        users in vec((select(&["", "root", "é", "a b"]), 0_u32..3), 0..=5), uid in 0_u32..4,
        broken in lines(&[":", "x", "9", "+0", "-", "é", "root"]),
    ) {
        let passwd: String = users.iter().map(|(name, uid)| format!("{name}:x:{uid}:0::/:\n")).collect();
        let wanted = users.iter().find(|user| user.1 == uid).map(|user| user.0.to_owned());
        prop_assert_eq!(name_of(&passwd, uid), wanted);
        let broken = broken.replace('\r', "");
        let found = name_of(&broken, uid);
        prop_assert!(found.is_none_or(|name| broken.contains(&name)));
    }
}
