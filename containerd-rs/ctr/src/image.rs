//! Images.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use proto::containerd::services::images::v1 as images;
use proto::containerd::types::transfer as types;

use crate::connection::{Client, answer, refused};
use crate::manifest::{own_platform, parse_platform, platforms, resolve};
use crate::snapshot::snapshotter;
use crate::table::{End, Table, labels, parse_labels, size};
use crate::transfer::{Credentials, import, pull};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// list images known to containerd
    #[command(visible_alias = "list")]
    Ls {
        /// print only the image refs
        #[arg(short, long)]
        quiet: bool,
        filters: Vec<String>,
    },
    /// pull an image from a remote
    Pull(Pull),
    /// import images
    Import(Import),
    /// remove one or more images by reference
    #[command(visible_aliases = ["remove", "del", "delete"])]
    Rm {
        /// synchronously remove image and all associated resources
        #[arg(long)]
        sync: bool,
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// tag an image
    Tag {
        /// force target references to be created, regardless if they already exist
        #[arg(long)]
        force: bool,
        source: String,
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// set and clear labels for an image
    Label { name: String, labels: Vec<String> },
}

#[derive(Args)]
pub(crate) struct Pull {
    /// snapshotter to unpack into
    #[arg(long)]
    snapshotter: Option<String>,
    /// pull content from a specific platform
    #[arg(long)]
    platform: Vec<String>,
    /// labels to attach to the image
    #[arg(long)]
    label: Vec<String>,
    /// user[:password] for the registry
    #[arg(short, long)]
    user: Option<String>,
    /// allow connections using plain HTTP
    #[arg(long)]
    plain_http: bool,
    /// custom hosts configuration directory
    #[arg(long)]
    hosts_dir: Option<String>,
    /// do not unpack the image
    #[arg(long)]
    no_unpack: bool,
    reference: String,
}

#[derive(Args)]
pub(crate) struct Import {
    #[arg(long)]
    snapshotter: Option<String>,
    /// imports content for a specific platform
    #[arg(long)]
    platform: Option<String>,
    /// base image name for added images
    #[arg(long)]
    base_name: Option<String>,
    /// image name for digested images
    #[arg(long)]
    digests: bool,
    /// skip unpacking the images
    #[arg(long)]
    no_unpack: bool,
    /// an archive, or - for stdin
    archive: PathBuf,
}

pub(crate) async fn execute(command: Command, client: &Client, out: &mut dyn Write) -> Result<()> {
    let mut service = client.images();
    match command {
        Command::Ls { quiet, filters } => ls(client, quiet, filters, out).await?,
        Command::Pull(arguments) => do_pull(client, arguments, out).await?,
        Command::Import(arguments) => do_import(client, arguments, out).await?,
        Command::Rm { sync, names } => {
            for name in names {
                let request = images::DeleteImageRequest { name: name.clone(), sync, target: None };
                match answer(service.delete(request).await) {
                    // Compat: ctr warns and goes on.
                    Err(error) if refused(&error, tonic::Code::NotFound) => {
                        let text = format!("{name}: image not found");
                        crate::connection::log_line("warning", &text, None);
                    }
                    result => {
                        result?;
                        writeln!(out, "{name}")?;
                    }
                }
            }
        }
        Command::Tag { force, source, targets } => {
            let image = crate::manifest::image(client, &source).await?;
            for name in targets {
                let tagged = images::Image { name: name.clone(), ..image.clone() };
                let request = images::CreateImageRequest {
                    image: Some(tagged.clone()),
                    ..Default::default()
                };
                match answer(service.create(request).await) {
                    Err(error) if force && refused(&error, tonic::Code::AlreadyExists) => {
                        let image = Some(tagged);
                        let request = images::UpdateImageRequest { image, ..Default::default() };
                        answer(service.update(request).await)?;
                    }
                    result => {
                        result?;
                    }
                }
                writeln!(out, "{name}")?;
            }
        }
        Command::Label { name, labels } => {
            // Stock containerd dies of an update without the target, whatever the mask says.
            let image = crate::manifest::image(client, &name).await?;
            let labels = parse_labels(&labels);
            let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
            let image = images::Image { labels, ..image };
            let request = images::UpdateImageRequest {
                image: Some(image),
                update_mask: Some(prost_types::FieldMask { paths }),
                ..Default::default()
            };
            let image = answer(service.update(request).await)?.image.unwrap_or_default();
            writeln!(out, "{}", self::labels(&image.labels))?;
        }
    }
    Ok(())
}

async fn ls(client: &Client, quiet: bool, filters: Vec<String>, out: &mut dyn Write) -> Result<()> {
    let request = images::ListImagesRequest { filters };
    let list = answer(client.images().list(request).await)?.images;
    let head = ["REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS"];
    let mut table = Table::new(&head, 1, 1, End::Closed);
    for image in list {
        if quiet {
            writeln!(out, "{}", image.name)?;
            continue;
        }
        // An image may lack content: it is shown all the same.
        let bytes = resolve(client, &image, &own_platform()).await.map_or(0, |image| image.size);
        let platforms = platforms(client, &image).await.unwrap_or_default();
        let platforms = if platforms.is_empty() { "-".to_owned() } else { platforms.join(",") };
        let target = image.target.unwrap_or_default();
        let labels = labels(&image.labels);
        table.row([image.name, target.media_type, target.digest, size(bytes), platforms, labels]);
    }
    if !quiet {
        table.print(out)?;
    }
    Ok(())
}

async fn do_pull(client: &Client, arguments: Pull, out: &mut dyn Write) -> Result<()> {
    let platforms = if arguments.platform.is_empty() {
        vec![own_platform()]
    } else {
        arguments.platform.iter().map(|name| parse_platform(name)).collect::<Result<_>>()?
    };
    let snapshotter = snapshotter(arguments.snapshotter);
    let unpacks = platforms.iter().filter(|_| !arguments.no_unpack).map(|platform| {
        let platform = Some(platform.clone());
        types::UnpackConfiguration { platform, snapshotter: snapshotter.clone() }
    });
    let store = types::ImageStore {
        name: arguments.reference.clone(),
        labels: parse_labels(&arguments.label),
        unpacks: unpacks.collect(),
        platforms,
        ..types::ImageStore::default()
    };
    let resolver = types::RegistryResolver {
        host_dir: arguments.hosts_dir.unwrap_or_default(),
        default_scheme: if arguments.plain_http { "http".to_owned() } else { String::new() },
        ..types::RegistryResolver::default()
    };
    let credentials = arguments.user.map(|given| {
        let (user, secret) = given.split_once(':').unwrap_or((&given, ""));
        Credentials { user: user.to_owned(), secret: secret.to_owned() }
    });
    let name = &arguments.reference;
    client.leased(async |client| pull(client, name, store, resolver, credentials, out).await).await
}

async fn do_import(client: &Client, arguments: Import, out: &mut dyn Write) -> Result<()> {
    let archive: Box<dyn Read + Send> =
        if arguments.archive.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            let open = std::fs::File::open(&arguments.archive);
            Box::new(open.map_err(|error| {
                crate::connection::file_error("open", &arguments.archive, &error)
            })?)
        };
    let platform =
        arguments.platform.as_deref().map_or_else(|| Ok(own_platform()), parse_platform)?;
    let snapshotter = snapshotter(arguments.snapshotter);
    let unpack = types::UnpackConfiguration { platform: Some(platform.clone()), snapshotter };
    // Compat: ctr's way to keep the names in the archive: a prefix that only stands in for
    // missing ones, or one that they must have.
    let today = || jiff::Timestamp::now().strftime("import-%Y-%m-%d").to_string();
    let reference = types::ImageReference {
        allow_overwrite: arguments.base_name.is_none(),
        name: arguments.base_name.unwrap_or_else(today),
        is_prefix: true,
        add_digest: arguments.digests,
        skip_named_digest: arguments.digests,
    };
    let store = types::ImageStore {
        platforms: arguments.platform.iter().map(|_| platform.clone()).collect(),
        extra_references: vec![reference],
        unpacks: (!arguments.no_unpack).then_some(unpack).into_iter().collect(),
        ..types::ImageStore::default()
    };
    client.leased(async |client| import(client, archive, store, out).await).await
}
