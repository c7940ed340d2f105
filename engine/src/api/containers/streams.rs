//! Answers that come as the container lives: wait, logs, attach.

use std::sync::Arc;

use bytes::Bytes;
use container_log::Timestamp;
use docker_api::container::{WaitError, WaitResponse};
use tokio_stream::wrappers::ReceiverStream;

use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::hijack::{hijack, stream_type};
use crate::api::reply::{self, Reply};
use crate::app::App;
use crate::container::attach::{self, Input, Output, Wanted};
use crate::container::{Container, logs};

pub(super) async fn wait(container: &Arc<Container>, call: &Call) -> Result<Reply, ApiError> {
    #[derive(Clone, Copy)]
    enum Until {
        NotRunning,
        NextExit,
        Removed,
    }
    let until = match call.query.get("condition") {
        "" | "not-running" => Until::NotRunning,
        "next-exit" => Until::NextExit,
        "removed" => Until::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: \"{other}\""))),
    };
    let mut state = container.state.subscribe();
    let exits = state.borrow().exits;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let met = state.wait_for(|now| match until {
            Until::NotRunning => !now.phase.is_running() && !now.held || now.removed,
            Until::NextExit => now.exits > exits && !now.held || now.removed,
            Until::Removed => now.removed,
        });
        let answer = tokio::select! {
            () = sender.closed() => return,
            met = met => match met {
                Ok(now) => WaitResponse {
                    // Compat: a failed start is told to who asks afterwards; who waited for the
                    // exit or the removal gets the code alone.
                    error: (matches!(until, Until::NotRunning) && !now.error.is_empty())
                        .then(|| WaitError { message: now.error.clone() }),
                    status_code: now.exit_code,
                },
                Err(_) => return,
            },
        };
        let mut bytes = serde_json::to_vec(&answer).unwrap_or_default();
        bytes.push(b'\n');
        drop(sender.send(bytes.into()).await);
    });
    Ok(reply::stream("application/json", ReceiverStream::new(receiver)))
}

pub(super) async fn logs(container: &Arc<Container>, call: &Call) -> Result<Reply, ApiError> {
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let time = |key: &str| -> Result<Option<Timestamp>, ApiError> {
        match query.get(key) {
            "" | "0" => Ok(None),
            text => docker_api::time::parse_unix(text)
                .map(|(seconds, nanos)| {
                    Some(Timestamp::new(seconds, u32::try_from(nanos).unwrap_or_default()))
                })
                .ok_or_else(|| {
                    ApiError::invalid(format!(
                        "strconv.ParseInt: parsing \"{text}\": invalid syntax"
                    ))
                }),
        }
    };
    let tty = container.record().config.tty;
    let options = logs::Options {
        stdout,
        stderr,
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        since: time("since")?,
        until: time("until")?,
        // Compat: what is no number means all.
        tail: query.get("tail").parse().ok(),
        tty,
    };
    let receiver = logs::read(container, options).await?;
    let content_type = stream_type(call.version, tty);
    Ok(reply::stream(content_type, ReceiverStream::new(receiver)))
}

pub(super) async fn attach(
    app: &Arc<App>,
    container: Arc<Container>,
    call: Call,
) -> Result<Reply, ApiError> {
    let query = &call.query;
    let keys = attach::detach_keys(query.get("detachKeys"))?;
    let (tty, open_stdin, stdin_once) = {
        let record = container.record();
        (record.config.tty, record.config.open_stdin, record.config.stdin_once)
    };
    let phase = container.phase();
    // Compat: named as the client named it.
    let name = call.name(1);
    if phase == crate::container::lifecycle::Phase::Paused {
        return Err(ApiError::conflict(format!(
            "container {name} is paused, unpause the container before attach"
        )));
    }
    if phase == crate::container::lifecycle::Phase::Restarting {
        return Err(ApiError::conflict(format!(
            "container {name} is restarting, wait until the container is running"
        )));
    }
    let stream = query.flag("stream");
    let wanted = Wanted {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    // Connected before the history is read, so that nothing falls between.
    let output = if stream { Some(Output::of(&container).await?) } else { None };
    let (history, joined) = if query.flag("logs") {
        let options = logs::Options {
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            tty,
            ..logs::Options::default()
        };
        let own = Arc::clone(&container);
        crate::container::rootfs::blocking(move || logs::replay(&own, &options)).await?
    } else {
        (Vec::new(), 0)
    };
    let input = (stream && wanted.stdin && open_stdin).then(|| Input {
        fifo: container.paths.run.join("stdin"),
        container_id: container.id.clone(),
        exec_id: String::new(),
        close: stdin_once && !tty,
        detach_keys: if tty { keys } else { Vec::new() },
    });
    container.event(app, "attach", &[]);
    let content_type = stream_type(call.version, tty);
    let app = Arc::clone(app);
    let answer = hijack(call.request, content_type, move |reader, mut writer| async move {
        use tokio::io::AsyncWriteExt;
        if !history.is_empty() && writer.write_all(&history).await.is_err() {
            return;
        }
        let Some(output) = output else {
            drop(writer.shutdown().await);
            return;
        };
        let end =
            attach::session(Arc::clone(&app), output, input, wanted, tty, joined, reader, writer)
                .await;
        if end == attach::End::Detached {
            container.event(&app, "detach", &[]);
        }
    });
    Ok(answer.await)
}
