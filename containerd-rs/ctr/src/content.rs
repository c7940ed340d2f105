//! Blobs.

use std::io::Write;

use anyhow::Result;
use clap::Subcommand;
use proto::containerd::services::content::v1 as content;

use crate::connection::{Client, answer, failure, refused};
use crate::table::{End, Table, age, labels, short_size};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// list all blobs in the store
    #[command(visible_alias = "list")]
    Ls {
        #[arg(short, long)]
        quiet: bool,
        filters: Vec<String>,
    },
    /// get the data for an object
    Get { digest: String },
    /// permanently delete one or more blobs
    #[command(visible_aliases = ["remove", "del", "delete"])]
    Rm {
        #[arg(required = true)]
        digests: Vec<String>,
    },
    /// display active transfers
    #[command(visible_alias = "active")]
    Ingests,
}

pub(crate) async fn execute(command: Command, client: &Client, out: &mut dyn Write) -> Result<()> {
    let mut service = client.content();
    match command {
        Command::Ls { quiet, filters } => {
            let mut stream = answer(service.list(content::ListContentRequest { filters }).await)?;
            let mut table = Table::new(&["DIGEST", "SIZE", "AGE", "LABELS"], 1, 1, End::Tabs);
            while let Some(page) = stream.message().await.map_err(failure)? {
                for info in page.info {
                    if quiet {
                        writeln!(out, "{}", info.digest)?;
                        continue;
                    }
                    let age = age(info.created_at);
                    table.row([info.digest, short_size(info.size), age, labels(&info.labels)]);
                }
            }
            if !quiet {
                table.print(out)?;
            }
        }
        Command::Get { digest } => {
            let request = content::ReadContentRequest { digest, ..Default::default() };
            let mut stream = answer(service.read(request).await)?;
            while let Some(chunk) = stream.message().await.map_err(failure)? {
                out.write_all(&chunk.data)?;
            }
            out.flush()?;
        }
        Command::Rm { digests } => {
            for digest in digests {
                let request = content::DeleteContentRequest { digest: digest.clone() };
                match answer(service.delete(request).await) {
                    // Compat: gone is gone.
                    Err(error) if refused(&error, tonic::Code::NotFound) => {}
                    result => {
                        result?;
                        writeln!(out, "{digest}")?;
                    }
                }
            }
        }
        Command::Ingests => {
            let request = content::ListStatusesRequest::default();
            let mut table = Table::new(&["REF", "SIZE", "AGE"], 1, 1, End::Closed);
            for status in answer(service.list_statuses(request).await)?.statuses {
                table.row([status.r#ref, short_size(status.offset), age(status.started_at)]);
            }
            table.print(out)?;
        }
    }
    Ok(())
}

/// A whole small blob.
pub(crate) async fn read(client: &Client, digest: &str) -> Result<Vec<u8>> {
    let request = content::ReadContentRequest { digest: digest.to_owned(), ..Default::default() };
    let mut stream = answer(client.content().read(request).await)?;
    let mut data = Vec::new();
    while let Some(chunk) = stream.message().await.map_err(failure)? {
        data.extend_from_slice(&chunk.data);
    }
    Ok(data)
}
