//! Logs: follow, tail, since, until, timestamps, streams, drivers.

use integration_tests::pool::lease;
use serde_json::json;

use crate::{PATIENT, ready, shell, with};

#[test]
fn logs_give_the_streams_and_the_last_lines_that_were_asked_for() {
    let stack = lease();
    let api = stack.api();
    let id = api.run("l1", &shell("echo one; echo two; echo three; echo bad >&2; printf end"));
    api.wait(&id);
    let logs = |query: &str| {
        let answer = api.get(&format!("/containers/l1/logs?{query}")).expect(200);
        answer.streams()
    };
    let pair = |out: &str, err: &str| (out.to_owned(), err.to_owned());
    assert_eq!(logs("stdout=1"), pair("one\ntwo\nthree\nend", ""));
    assert_eq!(logs("stderr=1"), pair("", "bad\n"));
    assert_eq!(logs("stdout=1&stderr=1"), pair("one\ntwo\nthree\nend", "bad\n"));
    assert_eq!(logs("stdout=1&stderr=1&tail=0"), pair("", ""));
    assert_eq!(logs("stdout=true&tail=all").0, "one\ntwo\nthree\nend");
    let id = api.run("plain", &shell("seq 1 9; printf end"));
    api.wait(&id);
    let tail = |count: &str| {
        let path = format!("/containers/plain/logs?stdout=1&tail={count}");
        api.get(&path).expect(200).streams().0
    };
    assert_eq!(tail("2"), "9\nend");
    assert_eq!(tail("100").lines().count(), 10);
    assert_eq!(tail("x").lines().count(), 10, "no number is all");
    let none = api.get("/containers/l1/logs").expect(400);
    assert_eq!(none.message(), "Bad parameters: you must choose at least one stream");
    let unknown = api.get("/containers/nope/logs?stdout=1").expect(404);
    assert_eq!(unknown.message(), "No such container: nope");
}

#[test]
fn timestamps_select_and_order_the_lines() {
    let stack = lease();
    let api = stack.api();
    let id = api.run("l1", &shell("echo one; usleep 50000; echo two; usleep 50000; echo three"));
    api.wait(&id);
    let text = api.get("/containers/l1/logs?stdout=1&timestamps=1").expect(200).streams().0;
    let lines: Vec<(&str, &str)> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line.1).collect::<Vec<_>>(), ["one", "two", "three"]);
    for (time, _) in &lines {
        // Nine digits, always: the columns stand under one another.
        assert_eq!((time.len(), &time[19..20], &time[29..]), (30, ".", "Z"), "{time}");
    }
    assert!(lines[0].0 < lines[1].0 && lines[1].0 < lines[2].0, "{text}");
    let second = lines[1].0;
    let logs = |query: String| {
        api.get(&format!("/containers/l1/logs?stdout=1&{query}")).expect(200).streams().0
    };
    let unix = seconds(second);
    assert_eq!(logs(format!("since={unix}")), "two\nthree\n");
    assert_eq!(logs(format!("until={unix}")), "one\ntwo\n");
    assert_eq!(logs(format!("since={unix}&until={unix}")), "two\n");
    assert_eq!(logs(format!("since={unix}&tail=1")), "three\n");
    assert_eq!(logs("since=4000000000".to_owned()), "");
}

/// `2026-01-02T03:04:05.123456789Z` as `SECONDS.NANOSECONDS`.
fn seconds(time: &str) -> String {
    let number = |range: std::ops::Range<usize>| time[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719_468;
    let seconds = days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    format!("{seconds}.{}", &time[20..29])
}

#[test]
fn following_gives_what_is_there_and_what_comes() {
    let stack = lease();
    let api = stack.api();
    let id = ready(&stack, "l1", &shell(PATIENT));
    let mut all = api.open("/containers/l1/logs?stdout=1&follow=1");
    let mut new = api.open("/containers/l1/logs?stdout=1&follow=1&tail=0");
    all.until("ready");
    api.post("/containers/l1/kill?signal=USR1").expect(204);
    all.until("got");
    let text = new.until("got");
    assert!(!text.contains("ready"), "{text}");
    api.post("/containers/l1/stop").expect(204);
    // The end of the container is the end of the stream.
    let (out, _) = integration_tests::stream::split_frames(&all.rest());
    assert_eq!(out, "ready\ngot\n");
    // And a stream that follows an ended container ends at once.
    let ended = api.open(&format!("/containers/{id}/logs?stdout=1&follow=1"));
    assert_eq!(integration_tests::stream::split_frames(&ended.rest()).0, "ready\ngot\n");
}

#[test]
fn a_terminals_log_is_one_raw_stream() {
    let stack = lease();
    let api = stack.api();
    let id = api.run("l1", &with(shell("echo out; echo err >&2"), json!({"Tty": true})));
    api.wait(&id);
    let text = api.get("/containers/l1/logs?stdout=1").expect(200).text();
    assert_eq!(text, "out\r\nerr\r\n");
}

#[test]
fn a_container_without_a_log_says_so() {
    let stack = lease();
    let api = stack.api();
    let body = with(shell("echo out"), json!({"HostConfig": {"LogConfig": {"Type": "none"}}}));
    let id = api.run("l1", &body);
    api.wait(&id);
    let answer = api.get("/containers/l1/logs?stdout=1");
    assert!(
        answer.text().contains("configured logging driver does not support reading"),
        "{}",
        answer.text()
    );
    let unknown = with(shell("true"), json!({"HostConfig": {"LogConfig": {"Type": "nope"}}}));
    let refused = api.post_json("/containers/create", &unknown);
    assert!(refused.status >= 400 && refused.message().contains("nope"), "{}", refused.text());
}

#[test]
fn a_log_turns_over_at_its_size_and_is_read_as_one() {
    let stack = lease();
    let api = stack.api();
    let log = json!({"Type": "json-file", "Config": {"max-size": "20k", "max-file": "3"}});
    let body = with(shell("seq 1 1000"), json!({"HostConfig": {"LogConfig": log}}));
    let id = api.run("l1", &body);
    api.wait(&id);
    let out = api.get("/containers/l1/logs?stdout=1").expect(200).streams().0;
    let numbers: Vec<u32> = out.lines().map(|line| line.parse().unwrap()).collect();
    let first = numbers[0];
    // About 75 bytes a line: three files hold fewer than all lines, and no line is missing between.
    assert!(first > 1 && first < 800, "{first}");
    assert_eq!(numbers, (first..=1000).collect::<Vec<_>>());
    assert_eq!(
        api.get("/containers/l1/logs?stdout=1&tail=700").expect(200).streams().0.lines().count(),
        700
    );
    let path = api.inspect(&id)["LogPath"].as_str().unwrap().to_owned();
    assert!(std::path::Path::new(&format!("{path}.2")).exists());
    assert!(!std::path::Path::new(&format!("{path}.3")).exists());
}
