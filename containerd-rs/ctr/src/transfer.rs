//! Pull and import through the Transfer service, with data and progress over Streaming.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read, Write};

use anyhow::{Context as _, Result, bail};
use prost_types::Any;
use proto::any::{is, pack, unpack};
use proto::containerd::services::streaming::v1::StreamInit;
use proto::containerd::services::transfer::v1 as transfer;
use proto::containerd::types::transfer as types;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::connection::{Client, answer, failure};
use crate::io::unique;
use crate::table::size;

/// A stream by its name: what we send, what the server sends.
struct Stream {
    id: String,
    to: mpsc::Sender<Any>,
    from: Streaming<Any>,
    /// The server's first message, when it was more than an acknowledgement.
    first: Option<Any>,
}

impl Stream {
    async fn open(client: &Client, kind: &str) -> Result<Self> {
        let id = format!("{kind}-{}", unique()?);
        let (to, messages) = mpsc::channel(4);
        to.send(pack(&StreamInit { id: id.clone() })).await.context("open stream")?;
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
        let mut from = answer(client.streaming().stream(messages).await)?;
        // The server answers when it knows the stream: only then may it be named.
        let first = from.message().await.map_err(failure)?;
        let first = first.filter(is::<types::WindowUpdate>);
        Ok(Self { id, to, from, first })
    }

    async fn next(&mut self) -> Result<Option<Any>> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.from.message().await.map_err(failure),
        }
    }
}

pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) secret: String,
}

/// Pulls `reference` and stores it under `store`.
pub(crate) async fn pull(
    client: &Client,
    reference: &str,
    store: types::ImageStore,
    mut resolver: types::RegistryResolver,
    credentials: Option<Credentials>,
    out: &mut dyn Write,
) -> Result<()> {
    if let Some(credentials) = credentials {
        let stream = Stream::open(client, "auth").await?;
        resolver.auth_stream = stream.id.clone();
        tokio::spawn(authenticate(stream, credentials));
    }
    let source = types::OciRegistry { reference: reference.to_owned(), resolver: Some(resolver) };
    run(client, pack(&source), pack(&store), out).await
}

/// Sends an archive and stores the images in it.
pub(crate) async fn import(
    client: &Client,
    archive: Box<dyn Read + Send>,
    store: types::ImageStore,
    out: &mut dyn Write,
) -> Result<()> {
    let stream = Stream::open(client, "import").await?;
    let source = types::ImageImportStream { stream: stream.id.clone(), ..Default::default() };
    let sender = tokio::spawn(send(stream, archive));
    let result = run(client, pack(&source), pack(&store), out).await;
    match result {
        Ok(()) => Ok(()),
        // A broken archive on our side explains the server's failure.
        Err(error) => match sender.is_finished().then_some(sender) {
            Some(sender) => sender.await?.and(Err(error)),
            None => Err(error),
        },
    }
}

/// Sends data as far as the server's window allows.
async fn send(mut stream: Stream, mut archive: Box<dyn Read + Send>) -> Result<()> {
    let mut window = 0_i64;
    let mut buffer = vec![0; CHUNK];
    loop {
        while window <= 0 {
            let Some(message) = stream.next().await? else { return Ok(()) };
            if is::<types::WindowUpdate>(&message) {
                window += i64::from(unpack::<types::WindowUpdate>(&message)?.update);
            }
        }
        let most = usize::try_from(window).unwrap_or(CHUNK).min(CHUNK);
        let count = archive.read(buffer.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            break;
        }
        window -= i64::try_from(count)?;
        let data = buffer.get(..count).unwrap_or_default().to_vec();
        if stream.to.send(pack(&types::Data { data })).await.is_err() {
            bail!("the server closed the import stream");
        }
    }
    // The end of ours is the end of the data; to leave now would cut off what is on its way.
    let Stream { to, mut from, .. } = stream;
    drop(to);
    while from.message().await.is_ok_and(|message| message.is_some()) {}
    Ok(())
}

async fn authenticate(mut stream: Stream, credentials: Credentials) -> Result<()> {
    while let Some(message) = stream.next().await? {
        if !is::<types::AuthRequest>(&message) {
            continue;
        }
        let response = types::AuthResponse {
            auth_type: types::AuthType::Credentials.into(),
            username: credentials.user.clone(),
            secret: credentials.secret.clone(),
            ..Default::default()
        };
        stream.to.send(pack(&response)).await?;
    }
    Ok(())
}

async fn run(client: &Client, source: Any, destination: Any, out: &mut dyn Write) -> Result<()> {
    let mut progress = Stream::open(client, "progress").await?;
    let request = transfer::TransferRequest {
        source: Some(source),
        destination: Some(destination),
        options: Some(transfer::TransferOptions { progress_stream: progress.id.clone() }),
    };
    let mut service = client.transfer();
    let work = service.transfer(request);
    tokio::pin!(work);
    let mut board = Board::default();
    let mut open = true;
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            message = progress.next(), if open => match message {
                Ok(Some(message)) => board.show(&message, out)?,
                Ok(None) | Err(_) => open = false,
            },
        }
    };
    // What was sent before the answer may still be on its way.
    while open && result.is_ok() {
        match tokio::time::timeout(LAST_WORDS, progress.next()).await {
            Ok(Ok(Some(message))) => board.show(&message, out)?,
            _ => open = false,
        }
    }
    answer(result)
}

/// Progress: a line for each change of an object's state; on a terminal with bytes as well.
#[derive(Default)]
struct Board {
    states: BTreeMap<String, String>,
}

impl Board {
    fn show(&mut self, message: &Any, out: &mut dyn Write) -> Result<()> {
        let Ok(progress) = unpack::<types::Progress>(message) else { return Ok(()) };
        if self.states.get(&progress.name) == Some(&progress.event) {
            if std::io::stderr().is_terminal() && progress.total > 0 {
                let (done, total) = (size(progress.progress), size(progress.total));
                write!(std::io::stderr(), "\r\x1b[K{}: {done}/{total}\r", progress.name)?;
            }
            return Ok(());
        }
        self.states.insert(progress.name.clone(), progress.event.clone());
        if progress.name.is_empty() {
            writeln!(out, "{}", progress.event)?;
        } else {
            writeln!(out, "{:<60} {}", progress.name, progress.event)?;
        }
        out.flush()?;
        Ok(())
    }
}

/// What containerd's own clients send at a time.
const CHUNK: usize = 32 << 10;
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(50);
