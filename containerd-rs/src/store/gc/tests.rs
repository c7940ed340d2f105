use super::*;
use crate::content::Writer;
use crate::context::Context;
use crate::filter::Filters;
use crate::store::images::Images;
use crate::store::record::Descriptor;
use proptest::prelude::*;

struct Bench {
    _directory: tempfile::TempDir,
    content: Content,
    snapshots: Snapshots,
    images: Images,
    leases: lease::Leases,
    collector: Collector,
    context: Context,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (store, events) = (Store::open(&root.join("meta.redb")).unwrap(), Events::default());
    let content = Content::open(root, store.clone(), events.clone()).unwrap();
    let snapshots = Snapshots::open(root, store.clone(), events.clone()).unwrap();
    Bench {
        images: Images::new(store.clone(), events.clone()),
        leases: lease::Leases::new(store.clone()),
        collector: Collector::new(store, content.clone(), snapshots.clone(), events),
        context: Context::new(Namespace::parse("test").unwrap()),
        content,
        snapshots,
        _directory: directory,
    }
}

impl Bench {
    async fn blob(&self, bytes: &[u8], labels: &[(&str, &str)]) -> String {
        let mut writer: Writer =
            self.content.open_writer(&self.context, &format!("{bytes:?}"), 0, None).await.unwrap();
        writer.write(bytes).unwrap();
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        writer.commit(0, None, labels).await.unwrap()
    }

    fn digests(&self) -> Vec<String> {
        let found = self.content.list(&self.context.namespace, &Filters::all()).unwrap();
        found.into_iter().map(|info| info.digest).collect()
    }
}

#[tokio::test]
async fn what_an_image_leads_to_stays_and_the_rest_goes() {
    let bench = bench();
    let layer = bench.blob(b"layer", &[]).await;
    let manifest = bench.blob(b"manifest", &[("containerd.io/gc.ref.content.l.0", &layer)]).await;
    let orphan = bench.blob(b"orphan", &[]).await;
    let target = Descriptor {
        media_type: "m".into(),
        digest: manifest.clone(),
        size: 8,
        annotations: Labels::new(),
    };
    bench.images.create(&bench.context, Image::new("i", target)).await.unwrap();
    bench.collector.run().await.unwrap();
    let mut kept = vec![layer, manifest];
    kept.sort();
    assert_eq!(bench.digests(), kept);
    assert!(!bench.content.path(&orphan).exists());
    bench.images.delete(&bench.context, "i", None).await.unwrap();
    bench.collector.run().await.unwrap();
    assert!(bench.digests().is_empty());
}

#[tokio::test]
async fn a_lease_holds_what_was_made_under_it_until_it_goes() {
    let mut bench = bench();
    let namespace = bench.context.namespace.clone();
    bench.leases.create(&namespace, "l", Labels::new()).await.unwrap();
    bench.context.lease = Some("l".into());
    bench.blob(b"held", &[]).await;
    let context = bench.context.clone();
    let mounts = bench.snapshots.prepare(&context, "overlayfs", "a", "", Labels::new()).await;
    let directory = mounts.unwrap()[0].source.clone();
    bench.collector.run().await.unwrap();
    assert_eq!(bench.digests().len(), 1);
    assert!(std::path::Path::new(&directory).exists());
    bench.leases.delete(&namespace, "l").await.unwrap();
    bench.collector.run().await.unwrap();
    assert!(bench.digests().is_empty());
    assert!(bench.snapshots.stat(&namespace, "overlayfs", "a").is_err());
    assert!(!std::path::Path::new(&directory).exists());
}

#[tokio::test]
async fn a_blob_that_is_found_while_garbage_is_collected_stays() {
    let bench = bench();
    let namespace = bench.context.namespace.clone();
    bench.leases.create(&namespace, "l", Labels::new()).await.unwrap();
    let context = Context { lease: Some("l".into()), ..bench.context.clone() };
    for round in 0_u8..100 {
        let digest = bench.blob(&[round], &[]).await;
        let hold = bench.content.hold(&context, &digest);
        let (collected, held) = if round % 2 == 0 {
            tokio::join!(bench.collector.run(), hold)
        } else {
            let (held, collected) = tokio::join!(hold, bench.collector.run());
            (collected, held)
        };
        collected.unwrap();
        assert_eq!(held.unwrap(), bench.digests().contains(&digest), "round {round}");
    }
}

#[tokio::test]
async fn an_open_ingest_survives_a_collection() {
    let bench = bench();
    let mut writer = bench.content.open_writer(&bench.context, "r", 0, None).await.unwrap();
    writer.write(b"half").unwrap();
    bench.collector.run().await.unwrap();
    writer.write(b"whole").unwrap();
    writer.commit(9, None, Labels::new()).await.unwrap();
}

#[test]
fn reference_labels_name_their_kind() {
    let labels = [
        ("containerd.io/gc.ref.content", "c"),
        ("containerd.io/gc.ref.content.config", "d"),
        ("containerd.io/gc.ref.content/x", "e"),
        ("containerd.io/gc.ref.contents", "no"),
        ("containerd.io/gc.ref.snapshot.overlayfs", "s"),
        ("containerd.io/gc.ref.snapshot.native/1", "t"),
        ("other", "no"),
    ];
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(
        references(&labels),
        [
            Node::Content("c".into()),
            Node::Content("d".into()),
            Node::Content("e".into()),
            Node::Snapshot("native".into(), "t".into()),
            Node::Snapshot("overlayfs".into(), "s".into()),
        ]
        .into_iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
    );
}

proptest! {
    #[test]
    fn a_reference_names_what_its_label_says(
        name in "containerd\\.io/gc\\.ref\\.(content|image|snapshot)?[./a-z]{0,8}|[a-z./]{0,12}",
        value in "\\PC{0,6}",
    ) {
        let nodes = references(&Labels::from([(name.clone(), value.clone())]));
        prop_assert!(nodes.len() <= 1);
        for node in nodes {
            prop_assert!(name.starts_with("containerd.io/gc.ref."));
            match node {
                Node::Content(it) | Node::Image(it) => prop_assert_eq!(it, value.clone()),
                Node::Snapshot(by, it) => {
                    let said = format!(".snapshot.{by}");
                    prop_assert!(!by.contains('/') && name.contains(&said));
                    prop_assert_eq!(it, value.clone());
                }
            }
        }
        std::hint::black_box(expired(&Labels::from([(lease::EXPIRE.to_owned(), value)]), Timestamp::now()));
    }
}
