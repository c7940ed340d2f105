//! Images: pull, load, import, tag, rmi; and the progress the daemon reports meanwhile.

use std::io::IsTerminal;

use bytes::Bytes;
use clap::Args;
use docker_api::image::ImageDeleted;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method};
use hyper::body::Frame;
use oci_image::reference::Reference;

use super::{Context, progress};
use crate::client::{empty, escape, query, streamed};
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Download all tagged images in the repository
    #[arg(short = 'a', long = "all-tags")]
    all_tags: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, default_value = "", hide_default_value = true)]
    platform: String,
    /// Suppress verbose output
    #[arg(short = 'q', long)]
    quiet: bool,
    name: String,
}

impl Pull {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        if self.all_tags {
            return Err(CliError::Usage(
                "not supported: pull --all-tags; name the tags one by one".into(),
            ));
        }
        let reference = parse(&self.name)?;
        if !self.quiet && !self.name.contains('@') && !has_tag(&self.name) {
            context.ui.say("Using default tag: latest")?;
        }
        pull(&self.name, &self.platform, self.quiet, false, context).await?;
        context.ui.say(&reference.with_default_tag().to_string())?;
        Ok(0)
    }
}

/// Pulls with its output on stderr, as `run` does.
pub(super) async fn pull_for_run(
    name: &str,
    platform: &str,
    quiet: bool,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    pull(name, platform, quiet, true, context).await
}

async fn pull(
    name: &str,
    platform: &str,
    quiet: bool,
    to_stderr: bool,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let reference = parse(name)?;
    let query = query(&[
        ("fromImage", name_without_tag(name)),
        ("tag", &tag_of(name)),
        ("platform", platform),
    ]);
    let mut headers = HeaderMap::new();
    if let Some(auth) = context.config.registry_auth(reference.domain())
        && let Ok(value) = HeaderValue::from_str(&auth)
    {
        headers.insert("X-Registry-Auth", value);
    }
    let path = format!("/images/create{query}");
    let answer = context.client.send_with(Method::POST, &path, headers, empty()).await?;
    progress::show(answer.into_body(), quiet, to_stderr, context).await
}

pub(super) fn parse(name: &str) -> Result<Reference, CliError> {
    Reference::parse(name).map_err(|problem| CliError::Usage(problem.to_string()))
}

/// Checks what may be a name or an id.
pub(super) fn parse_any(name: &str) -> Result<(), CliError> {
    let id = name.strip_prefix("sha256:").unwrap_or(name);
    if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    parse(name).map(drop)
}

fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// The name as a user reads it, with a tag.
pub(super) fn with_tag(name: &str) -> String {
    if has_tag(name) || name.contains('@') { name.to_owned() } else { format!("{name}:latest") }
}

fn tag_of(name: &str) -> String {
    if let Some((_, digest)) = name.split_once('@') {
        return digest.to_owned();
    }
    if has_tag(name) {
        return name.rsplit_once(':').map_or_else(String::new, |(_, tag)| tag.to_owned());
    }
    "latest".to_owned()
}

fn name_without_tag(name: &str) -> &str {
    if let Some((name, _)) = name.split_once('@') {
        return name;
    }
    if has_tag(name) { name.rsplit_once(':').map_or(name, |(name, _)| name) } else { name }
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Read from tar archive file, instead of STDIN
    #[arg(short = 'i', long)]
    input: Option<String>,
    /// Suppress the load output
    #[arg(short = 'q', long)]
    quiet: bool,
}

impl Load {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let archive = open(self.input.as_deref())?;
        let quiet = self.quiet || !context.ui.terminal;
        let path = format!("/images/load{}", query(&[("quiet", if quiet { "1" } else { "" })]));
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", HeaderValue::from_static("application/x-tar"));
        let answer = context.client.send_with(Method::POST, &path, headers, archive).await?;
        progress::show(answer.into_body(), false, false, context).await?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Apply Dockerfile instruction to the created image
    #[arg(short = 'c', long)]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
    message: String,
    /// Set platform if server is multi-platform capable
    #[arg(long, default_value = "", hide_default_value = true)]
    platform: String,
    file: String,
    repository: Option<String>,
}

impl Import {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        if self.file.starts_with("http://") || self.file.starts_with("https://") {
            return Err(CliError::Usage(
                "not supported: import from a URL; fetch it and import the file".into(),
            ));
        }
        let archive = open((self.file != "-").then_some(self.file.as_str()))?;
        let name = self.repository.unwrap_or_default();
        let mut path = format!(
            "/images/create{}",
            query(&[
                ("fromSrc", "-"),
                ("repo", name_without_tag(&name)),
                ("tag", &if has_tag(&name) { tag_of(&name) } else { String::new() }),
                ("message", &self.message),
                ("platform", &self.platform),
            ])
        );
        for change in &self.change {
            path.push_str(&format!("&changes={}", escape(change)));
        }
        let answer = context.client.send(Method::POST, &path, archive).await?;
        progress::show(answer.into_body(), false, false, context).await?;
        Ok(0)
    }
}

/// A file, or standard input, as a body that is sent while it is read.
fn open(path: Option<&str>) -> Result<crate::client::Body, CliError> {
    let file: Box<dyn std::io::Read + Send> = match path {
        Some(path) => Box::new(
            std::fs::File::open(path)
                .map_err(|source| CliError::io(format!("open {path}"), source))?,
        ),
        None if std::io::stdin().is_terminal() => {
            return Err(CliError::Usage("requested load from stdin, but stdin is empty".into()));
        }
        None => Box::new(std::io::stdin()),
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    std::thread::spawn(move || {
        let mut file = file;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let piece = match file.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    Ok(Frame::data(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())))
                }
                Err(problem) => Err(problem),
            };
            let last = piece.is_err();
            if sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    Ok(streamed(stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    })))
}

#[derive(Debug, Args)]
pub(crate) struct Tag {
    source: String,
    target: String,
}

impl Tag {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        parse(&self.target).map_err(|problem| {
            CliError::Usage(format!(
                "Error parsing reference: {:?} is not a valid repository/tag: {problem}",
                self.target
            ))
        })?;
        let query = query(&[
            ("repo", name_without_tag(&self.target)),
            ("tag", &if has_tag(&self.target) { tag_of(&self.target) } else { String::new() }),
        ]);
        context.client.act(&format!("/images/{}/tag{query}", path_of(&self.source))).await?;
        Ok(0)
    }
}

fn path_of(image: &str) -> String {
    escape(image).replace("%2F", "/").replace("%3A", ":")
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Force removal of the image
    #[arg(short = 'f', long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long = "no-prune")]
    no_prune: bool,
    #[arg(required = true)]
    images: Vec<String>,
}

impl Remove {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let flag = |on: bool| if on { "1" } else { "" };
        let query = query(&[("force", flag(self.force)), ("noprune", flag(self.no_prune))]);
        let mut failed = 0;
        for image in &self.images {
            match context.client.delete(&format!("/images/{}{query}", path_of(image))).await {
                Ok(text) => {
                    let deleted: Vec<ImageDeleted> =
                        docker_api::from_json(&text).map_err(CliError::Answer)?;
                    for item in deleted {
                        if let Some(digest) = item.deleted {
                            context.ui.say(&format!("Deleted: {digest}"))?;
                        }
                        if let Some(name) = item.untagged {
                            context.ui.say(&format!("Untagged: {name}"))?;
                        }
                    }
                }
                Err(problem) if self.force && problem.is_not_found() => {
                    context.ui.complain(&problem.to_string());
                }
                Err(problem) => {
                    context.ui.complain(&problem.to_string());
                    failed = 1;
                }
            }
        }
        Ok(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_the_tag_and_not_at_a_port() {
        for (name, bare, tag) in [
            ("busybox", "busybox", "latest"),
            ("localhost:5000/x", "localhost:5000/x", "latest"),
            ("localhost:5000/x:1", "localhost:5000/x", "1"),
            ("x@sha256:ab", "x", "sha256:ab"),
        ] {
            assert_eq!((name_without_tag(name), tag_of(name).as_str()), (bare, tag), "{name}");
        }
        assert_eq!(with_tag("localhost:5000/x"), "localhost:5000/x:latest");
    }
}
