//! One set of tests for every snapshotter.

use super::*;

struct Bench {
    _directory: tempfile::TempDir,
    snapshots: Snapshots,
    context: Context,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("meta.redb")).unwrap();
    let snapshots = Snapshots::open(directory.path(), store, Events::default()).unwrap();
    let context = Context::new(Namespace::parse("test").unwrap());
    Bench { _directory: directory, snapshots, context }
}

const BOTH: [&str; 2] = ["overlayfs", "native"];

async fn prepare(bench: &Bench, by: &str, key: &str, parent: &str) -> Result<Vec<Mount>> {
    bench.snapshots.prepare(&bench.context, by, key, parent, Labels::new()).await
}

async fn commit(bench: &Bench, by: &str, name: &str, key: &str) -> Result<()> {
    stack(bench, by, name, key, None).await
}

async fn stack(bench: &Bench, by: &str, name: &str, key: &str, onto: Option<&str>) -> Result<()> {
    let (name, key, onto) = (name.to_owned(), key.to_owned(), onto.map(str::to_owned));
    let commit = Commit { key, name, labels: Labels::new(), onto };
    bench.snapshots.commit(&bench.context, by, commit).await
}

#[tokio::test]
async fn a_key_becomes_a_name_and_then_a_parent() {
    for by in BOTH {
        let bench = bench();
        let mounts = prepare(&bench, by, "a", "").await.unwrap();
        assert_eq!(mounts[0].kind, "bind", "{by}");
        std::fs::write(format!("{}/f", mounts[0].source), "x").unwrap();
        commit(&bench, by, "one", "a").await.unwrap();
        let namespace = &bench.context.namespace;
        assert!(bench.snapshots.stat(namespace, by, "a").is_err());
        assert!(bench.snapshots.mounts(namespace, by, "one").is_err());
        let usage = bench.snapshots.usage(namespace, by, "one").await.unwrap();
        assert_eq!(usage.inodes, 2, "{by}");
        let above = prepare(&bench, by, "b", "one").await.unwrap();
        assert_eq!(above, bench.snapshots.mounts(namespace, by, "b").unwrap());
        let info = bench.snapshots.stat(namespace, by, "b").unwrap();
        assert_eq!((info.parent.as_str(), info.kind), ("one", Kind::Active));
    }
}

#[tokio::test]
async fn what_is_used_cannot_be_used_again_or_removed() {
    for by in BOTH {
        let bench = bench();
        prepare(&bench, by, "a", "").await.unwrap();
        let again = prepare(&bench, by, "a", "").await.unwrap_err();
        assert_eq!(again.to_string(), "snapshot \"a\": already exists");
        let active = prepare(&bench, by, "b", "a").await.unwrap_err();
        assert!(active.to_string().contains("is not committed snapshot"), "{active}");
        assert!(prepare(&bench, by, "b", "nothing").await.is_err());
        commit(&bench, by, "one", "a").await.unwrap();
        prepare(&bench, by, "c", "one").await.unwrap();
        let held = bench.snapshots.remove(&bench.context, by, "one").await.unwrap_err();
        assert_eq!(held.to_string(), "cannot remove snapshot with child: failed precondition");
        bench.snapshots.remove(&bench.context, by, "c").await.unwrap();
        bench.snapshots.remove(&bench.context, by, "one").await.unwrap();
        assert!(bench.snapshots.remove(&bench.context, by, "one").await.is_err());
    }
}

#[tokio::test]
async fn a_view_is_read_only_and_cannot_be_committed() {
    for by in BOTH {
        let bench = bench();
        prepare(&bench, by, "a", "").await.unwrap();
        commit(&bench, by, "one", "a").await.unwrap();
        let mounts =
            bench.snapshots.view(&bench.context, by, "v", "one", Labels::new()).await.unwrap();
        assert!(mounts[0].options.contains(&"ro".to_owned()), "{by}: {mounts:?}");
        assert!(commit(&bench, by, "two", "v").await.is_err());
    }
}

#[tokio::test]
async fn cleanup_removes_only_what_no_record_knows() {
    for by in BOTH {
        let bench = bench();
        let mounts = prepare(&bench, by, "a", "").await.unwrap();
        let (_, trees) = bench.snapshots.all().find(|(name, _)| *name == by).unwrap();
        let stray = trees.root().join("snapshots/new-77");
        std::fs::create_dir(&stray).unwrap();
        bench.snapshots.cleanup(by).await.unwrap();
        assert!(!stray.exists());
        assert!(Path::new(&mounts[0].source).exists());
    }
}

#[tokio::test]
async fn an_overlay_names_its_parents_nearest_first() {
    let bench = bench();
    let mut parent = String::new();
    for name in ["one", "two"] {
        prepare(&bench, "overlayfs", "x", &parent).await.unwrap();
        commit(&bench, "overlayfs", name, "x").await.unwrap();
        name.clone_into(&mut parent);
    }
    let mounts = prepare(&bench, "overlayfs", "c", "two").await.unwrap();
    let options = mounts[0].options.join(",");
    assert_eq!((mounts[0].kind.as_str(), mounts[0].source.as_str()), ("overlay", "overlay"));
    let base = bench.snapshots.all().find(|(name, _)| *name == "overlayfs").unwrap().1.root();
    let base = base.join("snapshots").to_string_lossy().into_owned();
    let lower = format!("lowerdir={base}/2/fs:{base}/1/fs");
    assert!(options.contains(&lower), "{options}");
    assert!(options.contains(&format!("workdir={base}/3/work,upperdir={base}/3/fs")), "{options}");
}

#[tokio::test]
async fn layers_made_side_by_side_are_stacked_at_commit() {
    let bench = bench();
    prepare(&bench, "overlayfs", "a", "").await.unwrap();
    prepare(&bench, "overlayfs", "b", "").await.unwrap();
    commit(&bench, "overlayfs", "one", "a").await.unwrap();
    stack(&bench, "overlayfs", "two", "b", Some("one")).await.unwrap();
    let context = &bench.context;
    assert_eq!(bench.snapshots.stat(&context.namespace, "overlayfs", "two").unwrap().parent, "one");
    assert!(bench.snapshots.remove(context, "overlayfs", "one").await.is_err());
}

#[tokio::test]
async fn what_the_disk_lost_begins_again_and_no_number_is_given_twice() {
    for by in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("meta.redb")).unwrap();
        let open = || Snapshots::open(directory.path(), store.clone(), Events::default()).unwrap();
        let context = Context::new(Namespace::parse("test").unwrap());
        let bench = Bench { _directory: tempfile::tempdir().unwrap(), snapshots: open(), context };
        prepare(&bench, by, "a", "").await.unwrap();
        commit(&bench, by, "one", "a").await.unwrap();
        for key in ["renamed", "lost"] {
            prepare(&bench, by, key, "one").await.unwrap();
        }
        let trees = bench.snapshots.snapshotter(by).unwrap().root().join("snapshots");
        let stat = |bench: &Bench, key: &str| {
            bench.snapshots.stat(&bench.context.namespace, by, key).unwrap().id
        };
        let ids = ["renamed", "lost"].map(|key| stat(&bench, key));
        // As the power may fail: before the rename, or before anything of it was on the disk.
        let [renamed, lost] = ids.map(|id| trees.join(id.to_string()));
        std::fs::rename(&renamed, trees.join(format!("new-{}", ids[0]))).unwrap();
        std::fs::remove_dir_all(&lost).unwrap();

        let bench = Bench { snapshots: open(), ..bench };
        bench.snapshots.recover().await;
        assert!(renamed.is_dir() && lost.is_dir(), "{by}");
        assert!(!trees.join(format!("new-{}", ids[0])).exists(), "{by}");
        prepare(&bench, by, "next", "one").await.unwrap();
        assert!(!ids.contains(&stat(&bench, "next")), "{by}");
    }
}
