//! `--timings`: where the time of a command goes. Only ours has it.

use crate::bundle::{Bundle, ours_only, stderr};

/// Commands and steps of the table; each line ends with a number of milliseconds.
fn steps(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap_or_default(), "COMMAND  STEP                MS", "{text}");
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [command, step, time] = words[..] else { panic!("{line}") };
            assert!(time.parse::<f64>().unwrap() >= 0.0, "{line}");
            assert_eq!(time.split('.').nth(1).map(str::len), Some(3), "{line}");
            format!("{command} {step}")
        })
        .collect()
}

#[test]
fn timings_name_the_steps_of_each_command() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("true");
    let path = bundle.path().to_str().unwrap();
    let create: Vec<String> =
        ["parse", "plan", "cgroup", "clone", "limits", "rootfs", "process", "total"]
            .map(|step| format!("create {step}"))
            .to_vec();
    let all = |more: &[&str]| -> Vec<String> {
        create.iter().cloned().chain(more.iter().map(|&step| step.to_owned())).collect()
    };
    let output = bundle.call(&["--timings", "run", "--bundle", path, &bundle.id]);
    assert!(output.status.success(), "{}", stderr(&output));
    let more = ["run create", "run start", "run container", "run delete", "run total"];
    assert_eq!(steps(&stderr(&output)), all(&more));

    let bundle = Bundle::new("sleep 100");
    let path = bundle.path().to_str().unwrap();
    let timed = |arguments: &[&str]| {
        let file = bundle.path().join("stderr");
        let stream = std::fs::OpenOptions::new().create(true).append(true).open(&file).unwrap();
        let mut command = bundle.command(&[&["--timings"], arguments].concat());
        let status = command.stdout(std::process::Stdio::null()).stderr(stream).status().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(status.success(), "{text}");
        steps(&text)
    };
    assert_eq!(timed(&["create", "--bundle", path, &bundle.id]), create);
    assert_eq!(timed(&["start", &bundle.id]), ["start load", "start release", "start total"]);
    assert_eq!(
        timed(&["exec", &bundle.id, "true"]),
        ["exec load", "exec clone", "exec limits", "exec process", "exec container", "exec total"]
    );
    let delete = timed(&["delete", "--force", &bundle.id]);
    assert_eq!(delete, ["delete end", "delete remove", "delete total"]);
}

#[test]
fn timings_of_a_failure_end_where_it_failed() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("true");
    bundle.process()["args"] = serde_json::json!(["/no/such"]);
    let path = bundle.path().to_str().unwrap();
    let output = bundle.call(&["--timings", "run", "--bundle", path, &bundle.id]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let (table, error) = text.split_at(text.find("time=").unwrap());
    let steps = steps(table);
    assert_eq!(steps[steps.len() - 3..], ["create rootfs", "create total", "run total"]);
    assert!(error.contains("no such file or directory"), "{error}");
}
