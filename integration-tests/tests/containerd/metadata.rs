//! What the daemon keeps: blobs, images, snapshots, leases, namespaces; over kill -9, too.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use proto::containerd::services::content::v1::content_client::ContentClient;
use proto::containerd::services::content::v1::{
    InfoRequest, ReadContentRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use proto::containerd::services::diff::v1::ApplyRequest;
use proto::containerd::services::diff::v1::diff_client::DiffClient;
use proto::containerd::services::events::v1::SubscribeRequest;
use proto::containerd::services::events::v1::events_client::EventsClient;
use proto::containerd::services::images::v1::images_client::ImagesClient;
use proto::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image,
};
use proto::containerd::services::leases::v1::leases_client::LeasesClient;
use proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use proto::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use proto::containerd::services::namespaces::v1::{DeleteNamespaceRequest, GetNamespaceRequest};
use proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
    StatSnapshotRequest,
};
use proto::containerd::types::{Descriptor, Mount};
use sha2::{Digest as _, Sha256};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use integration_tests::parts::ours;

use crate::daemon::Daemon;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A request in the daemon's own namespace, under a lease if one is given.
fn scoped<T>(daemon: &Daemon, lease: &str, message: T) -> Request<T> {
    let mut headers = MetadataMap::new();
    headers.insert("containerd-namespace", daemon.namespace.parse().unwrap());
    if !lease.is_empty() {
        headers.insert("containerd-lease", lease.parse().unwrap());
    }
    Request::from_parts(headers, tonic::Extensions::default(), message)
}

fn digest(bytes: &[u8]) -> String {
    let hash: Vec<String> =
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hash.concat())
}

fn message(action: WriteAction, offset: usize, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: "ref".to_owned(),
        offset: i64::try_from(offset).unwrap(),
        data: data.to_vec(),
        ..Default::default()
    }
}

async fn stream(
    daemon: &Daemon,
    lease: &str,
    messages: Vec<WriteContentRequest>,
) -> Result<WriteContentResponse, Status> {
    let mut client = ContentClient::new(daemon.channel.clone());
    let request = scoped(daemon, lease, tokio_stream::iter(messages));
    let mut answers = client.write(request).await?.into_inner();
    let mut last = WriteContentResponse::default();
    while let Some(answer) = answers.message().await? {
        last = answer;
    }
    Ok(last)
}

async fn blob(daemon: &Daemon, lease: &str, bytes: &[u8], labels: &[(&str, &str)]) -> String {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let commit = WriteContentRequest { labels, ..message(WriteAction::Commit, 0, bytes) };
    let done = stream(daemon, lease, vec![commit]).await.unwrap();
    assert_eq!(done.digest, digest(bytes));
    done.digest
}

async fn read(daemon: &Daemon, digest: &str) -> Result<Vec<u8>, Status> {
    let mut client = ContentClient::new(daemon.channel.clone());
    let request = ReadContentRequest { digest: digest.to_owned(), ..Default::default() };
    let mut answers = client.read(scoped(daemon, "", request)).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(answer) = answers.message().await? {
        bytes.extend(answer.data);
    }
    Ok(bytes)
}

async fn prepare(daemon: &Daemon, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
    let request = PrepareSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        // Nobody refers to it: the collector would take it.
        labels: [("containerd.io/gc.root".to_owned(), "test".to_owned())].into(),
    };
    let mut client = SnapshotsClient::new(daemon.channel.clone());
    Ok(client.prepare(scoped(daemon, "", request)).await?.into_inner().mounts)
}

async fn commit(daemon: &Daemon, name: &str, key: &str) {
    let request = CommitSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
        labels: [("containerd.io/gc.root".to_owned(), "test".to_owned())].into(),
        ..Default::default()
    };
    let mut client = SnapshotsClient::new(daemon.channel.clone());
    client.commit(scoped(daemon, "", request)).await.unwrap();
}

fn upper(mounts: &[Mount]) -> PathBuf {
    let [mount] = mounts else { panic!("one mount: {mounts:?}") };
    let upper = mount.options.iter().find_map(|option| option.strip_prefix("upperdir="));
    upper.unwrap_or(&mount.source).into()
}

/// A tar of (path, content); no content makes a directory.
fn tar(entries: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(if content.is_some() { 0o640 } else { 0o750 });
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        if content.is_none() {
            header.set_entry_type(tar::EntryType::Directory);
        }
        let content = content.unwrap_or_default();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content).unwrap();
    }
    archive.into_inner().unwrap()
}

async fn apply(daemon: &Daemon, layer: &[u8], mounts: Vec<Mount>) -> Result<Descriptor, Status> {
    let diff = Descriptor {
        media_type: LAYER.to_owned(),
        digest: digest(layer),
        size: i64::try_from(layer.len()).unwrap(),
        ..Default::default()
    };
    let request = ApplyRequest { diff: Some(diff), mounts, ..Default::default() };
    let mut client = DiffClient::new(daemon.channel.clone());
    Ok(client.apply(scoped(daemon, "", request)).await?.into_inner().applied.unwrap())
}

#[tokio::test]
async fn a_half_written_blob_is_resumed_after_kill_9_and_a_whole_one_is_kept() {
    let mut daemon = Daemon::start().await;
    let bytes = vec![7_u8; 3 << 20];
    let (first, second) = bytes.split_at(1 << 20);
    let half = stream(&daemon, "", vec![message(WriteAction::Write, 0, first)]).await.unwrap();
    assert_eq!(half.offset, 1 << 20);
    daemon.kill();
    daemon.restart().await;
    let stat = stream(&daemon, "", vec![message(WriteAction::Stat, 0, &[])]).await.unwrap();
    assert_eq!((stat.offset, stat.digest), (1 << 20, digest(first)));
    let root = ("containerd.io/gc.root".to_owned(), "test".to_owned());
    let labels = [root.clone()].into();
    let rest = WriteContentRequest { labels, ..message(WriteAction::Commit, first.len(), second) };
    let whole = stream(&daemon, "", vec![rest]).await.unwrap();
    assert_eq!(whole.digest, digest(&bytes));
    daemon.kill();
    daemon.restart().await;
    assert_eq!(read(&daemon, &whole.digest).await.unwrap(), bytes);
    let mut client = ContentClient::new(daemon.channel.clone());
    let request = InfoRequest { digest: whole.digest };
    let info = client.info(scoped(&daemon, "", request)).await.unwrap().into_inner().info.unwrap();
    assert_eq!((info.size, info.labels), (3 << 20, [root].into()));
}

#[tokio::test]
async fn snapshots_and_their_mounts_are_the_same_after_kill_9() {
    let mut daemon = Daemon::start().await;
    let lease = CreateRequest { id: "l".to_owned(), ..Default::default() };
    LeasesClient::new(daemon.channel.clone()).create(scoped(&daemon, "", lease)).await.unwrap();
    let under = |key: &str, parent: &str| {
        let request = PrepareSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        scoped(&daemon, "l", request)
    };
    let mut client = SnapshotsClient::new(daemon.channel.clone());
    client.prepare(under("a", "")).await.unwrap();
    let request = CommitSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        name: "base".to_owned(),
        key: "a".to_owned(),
        ..Default::default()
    };
    client.commit(scoped(&daemon, "l", request)).await.unwrap();
    let before = client.prepare(under("b", "base")).await.unwrap().into_inner().mounts;
    daemon.kill();
    daemon.restart().await;
    let mut client = SnapshotsClient::new(daemon.channel.clone());
    let request = MountsRequest { snapshotter: "overlayfs".to_owned(), key: "b".to_owned() };
    let after = client.mounts(scoped(&daemon, "", request)).await.unwrap().into_inner().mounts;
    assert_eq!(after, before);
    assert!(upper(&after).exists());
}

#[tokio::test]
async fn layers_are_applied_without_mounting_and_whiteouts_hide_what_is_below() {
    let daemon = Daemon::start().await;
    let first = tar(&[("d", None), ("d/old", Some(b"1")), ("o", None), ("o/x", Some(b"2"))]);
    let second =
        tar(&[("d", None), ("d/.wh.old", Some(b"")), ("o", None), ("o/.wh..wh..opq", Some(b""))]);
    // Each stays known until the next collection; a lease of the client would hold it.
    for layer in [&first, &second] {
        blob(&daemon, "", layer, &[("containerd.io/gc.root", "test")]).await;
    }
    let mounts = prepare(&daemon, "a", "").await.unwrap();
    let applied = apply(&daemon, &first, mounts.clone()).await.unwrap();
    assert_eq!((applied.digest, applied.media_type), (digest(&first), LAYER.to_owned()));
    let below = upper(&mounts);
    assert_eq!(std::fs::read(below.join("d/old")).unwrap(), b"1");
    let found = std::fs::metadata(below.join("d/old")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.mtime()), (0o640, 1_700_000_000));
    commit(&daemon, "base", "a").await;
    let mounts = prepare(&daemon, "b", "base").await.unwrap();
    apply(&daemon, &second, mounts.clone()).await.unwrap();
    let hidden = std::fs::symlink_metadata(upper(&mounts).join("d/old")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    assert!(!upper(&mounts).join("o/.wh..wh..opq").exists());
}

#[tokio::test]
async fn a_layer_cannot_write_outside_its_snapshot() {
    let daemon = Daemon::start().await;
    let mut evil = tar(&[("harmless", Some(b"x"))]);
    // The tar crate refuses such names; the header is plain text, its checksum a sum.
    let name = b"../../../../../escaped";
    evil[..name.len()].copy_from_slice(name);
    evil[148..156].fill(b' ');
    let sum: u32 = evil[..512].iter().map(|byte| u32::from(*byte)).sum();
    evil[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    blob(&daemon, "", &evil, &[("containerd.io/gc.root", "test")]).await;
    let mounts = prepare(&daemon, "a", "").await.unwrap();
    let outcome = apply(&daemon, &evil, mounts.clone()).await;
    let mut up = upper(&mounts);
    while up.pop() {
        assert!(!up.join("escaped").exists(), "{} after {outcome:?}", up.display());
    }
}

#[tokio::test]
async fn removing_an_image_in_sync_frees_what_only_it_held() {
    let daemon = Daemon::start().await;
    let lease = CreateRequest { id: "l".to_owned(), ..Default::default() };
    let mut leases = LeasesClient::new(daemon.channel.clone());
    leases.create(scoped(&daemon, "", lease)).await.unwrap();
    let layer = blob(&daemon, "l", b"layer", &[]).await;
    let labels = [("containerd.io/gc.ref.content.l.0", layer.as_str())];
    let manifest = blob(&daemon, "l", b"manifest", &labels).await;
    let target = Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest: manifest.clone(),
        size: 8,
        ..Default::default()
    };
    let image = Image { name: "i".to_owned(), target: Some(target), ..Default::default() };
    let mut images = ImagesClient::new(daemon.channel.clone());
    let create = CreateImageRequest { image: Some(image), ..Default::default() };
    images.create(scoped(&daemon, "", create)).await.unwrap();
    let free = DeleteRequest { id: "l".to_owned(), sync: true };
    leases.delete(scoped(&daemon, "", free)).await.unwrap();
    assert_eq!(read(&daemon, &layer).await.unwrap(), b"layer");
    let remove = DeleteImageRequest { name: "i".to_owned(), sync: true, ..Default::default() };
    images.delete(scoped(&daemon, "", remove)).await.unwrap();
    for gone in [&layer, &manifest] {
        let error = read(&daemon, gone).await.unwrap_err();
        assert_eq!(error.message(), format!("content digest {gone}: not found"));
        let blobs = daemon.top.path().join("root/io.containerd.content.v1.content/blobs/sha256");
        assert!(!blobs.join(&gone["sha256:".len()..]).exists());
    }
}

#[tokio::test]
async fn refusals_have_containerds_codes_and_texts() {
    let daemon = Daemon::start().await;
    let mut images = ImagesClient::new(daemon.channel.clone());
    let get = || GetImageRequest { name: "x".to_owned() };
    // Compat: the texts are those that stock containerd 1.6 gave for the same calls.
    let bare = images.get(get()).await.unwrap_err();
    assert_eq!(bare.code(), Code::FailedPrecondition);
    assert_eq!(bare.message(), "namespace is required: failed precondition");
    let missing = images.get(scoped(&daemon, "", get())).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "image \"x\": not found"));
    prepare(&daemon, "a", "").await.unwrap();
    let again = prepare(&daemon, "a", "").await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    assert_eq!(again.message(), "snapshot \"a\": already exists");
    let orphan = prepare(&daemon, "b", "nope").await.unwrap_err();
    assert_eq!(orphan.code(), Code::NotFound);
    assert_eq!(orphan.message(), "parent snapshot nope does not exist: not found");
    commit(&daemon, "base", "a").await;
    prepare(&daemon, "b", "base").await.unwrap();
    let mut snapshots = SnapshotsClient::new(daemon.channel.clone());
    let remove =
        RemoveSnapshotRequest { snapshotter: "overlayfs".to_owned(), key: "base".to_owned() };
    let held = snapshots.remove(scoped(&daemon, "", remove)).await.unwrap_err();
    assert_eq!(held.code(), Code::FailedPrecondition);
    assert_eq!(held.message(), "cannot remove snapshot with child: failed precondition");
    let stat = StatSnapshotRequest { snapshotter: "overlayfs".to_owned(), key: "no".to_owned() };
    let gone = snapshots.stat(scoped(&daemon, "", stat)).await.unwrap_err();
    assert_eq!(gone.message(), "snapshot no does not exist: not found");
    let mut namespaces = NamespacesClient::new(daemon.channel.clone());
    let name = daemon.namespace.clone();
    namespaces.get(GetNamespaceRequest { name: name.clone() }).await.unwrap();
    // dockerd asks for its own when it connects, made or not.
    let nobodys = GetNamespaceRequest { name: "nobodys".to_owned() };
    let nobodys = namespaces.get(nobodys).await.unwrap().into_inner().namespace.unwrap();
    assert_eq!((nobodys.name.as_str(), nobodys.labels.len()), ("nobodys", 0));
    let full = namespaces.delete(DeleteNamespaceRequest { name: name.clone() }).await.unwrap_err();
    assert_eq!(full.code(), Code::FailedPrecondition);
    let text = format!(
        "namespace \"{name}\" must be empty, but it still has snapshots on \"overlayfs\" \
         snapshotter: failed precondition"
    );
    assert_eq!(full.message(), text);
}

#[tokio::test]
async fn a_subscriber_with_headers_misses_nothing_and_gets_only_what_it_asked_for() {
    let daemon = Daemon::start().await;
    let mut client = EventsClient::new(daemon.channel.clone());
    let filters = vec![format!("topic==/snapshot/prepare,event.key==wanted")];
    // No event is needed for the call to return: the headers come at once.
    let mut events = client.subscribe(SubscribeRequest { filters }).await.unwrap().into_inner();
    prepare(&daemon, "other", "").await.unwrap();
    prepare(&daemon, "wanted", "").await.unwrap();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!((event.topic.as_str(), &event.namespace), ("/snapshot/prepare", &daemon.namespace));
}

#[test]
fn arguments_of_the_client_never_start_a_daemon() {
    let output = Command::new(ours("containerd-rs")).args(["run", "--rm", "i", "c"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("ctr-rs run --rm i c"), "{text}");
}

#[tokio::test]
async fn the_socket_is_closed_to_strangers_and_goes_with_sigterm() {
    let mut daemon = Daemon::start().await;
    let socket = daemon.top.path().join("c.sock");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&socket), 0o660);
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    assert!(!socket.exists());
}
