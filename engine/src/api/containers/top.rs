//! `GET /containers/{id}/top`.

use docker_api::container::TopResponse;
use proto::containerd::services::tasks::v1 as tasks_api;

use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::reply::{self, Reply};
use crate::app::App;
use crate::container::Container;

pub(super) async fn top(app: &App, container: &Container, call: &Call) -> Result<Reply, ApiError> {
    if !container.phase().has_process() {
        return Err(ApiError::conflict(format!("container {} is not running", container.id)));
    }
    let request = tasks_api::ListPidsRequest { container_id: container.id.clone() };
    let answer = app.containerd.tasks().list_pids(request).await?.into_inner();
    let pids: Vec<String> = answer.processes.iter().map(|one| one.pid.to_string()).collect();
    let arguments = match call.query.get("ps_args") {
        "" => "-ef",
        given => given,
    };
    let output = tokio::process::Command::new("ps")
        .args(arguments.split_whitespace())
        .output()
        .await
        .map_err(|error| ApiError::internal(format!("Error running ps: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        // Compat: the first line, where ps says what is wrong; the rest is its usage.
        let first = text.trim().lines().next().unwrap_or_default();
        return Err(ApiError::internal(format!("ps: {}", first.trim())));
    }
    parse_ps(&String::from_utf8_lossy(&output.stdout), &pids)
        .map(|answer| reply::ok(&answer))
        .ok_or_else(|| ApiError::internal("Couldn't find PID field in ps output"))
}

fn parse_ps(text: &str, pids: &[String]) -> Option<TopResponse> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next()?.split_whitespace().map(str::to_owned).collect();
    let column = titles.iter().position(|title| title == "PID")?;
    let processes = lines
        .filter_map(|line| {
            let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            if words.len() > titles.len() {
                let rest = words.split_off(titles.len() - 1).join(" ");
                words.push(rest);
            }
            pids.contains(words.get(column)?).then_some(words)
        })
        .collect();
    Some(TopResponse { processes, titles })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ps_rows_keep_the_command_in_one_column() {
        let text = "UID PID CMD\nroot 7 sleep 10\nroot 8 sh\n";
        let answer = parse_ps(text, &["7".to_owned()]).unwrap();
        assert_eq!(answer.processes, [["root", "7", "sleep 10"]]);
        assert!(parse_ps("A B\n", &[]).is_none());
    }

    proptest! {
        #[test]
        fn no_row_is_wider_than_its_titles(
            text in "([A-Z ]{0,6}PID[A-Z \t]{0,6}|[A-Z ]{0,9})\n([a-z0-9 \t]{0,12}\n){0,5}",
            pid in "[0-9]",
        ) {
            if let Some(answer) = parse_ps(&text, std::slice::from_ref(&pid)) {
                let at = answer.titles.iter().position(|title| title == "PID").unwrap();
                for row in answer.processes {
                    prop_assert!(row.len() <= answer.titles.len());
                    prop_assert!(row[at].starts_with(&pid));
                }
            }
        }
    }
}
