use super::*;

struct Bench {
    _directory: tempfile::TempDir,
    content: Content,
    context: Context,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("meta.redb")).unwrap();
    let content = Content::open(directory.path(), store, Events::default()).unwrap();
    let context = Context::new(Namespace::parse("test").unwrap());
    Bench { _directory: directory, content, context }
}

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

async fn store_hello(bench: &Bench, context: &Context) -> Result<String> {
    let mut writer = bench.content.open_writer(context, "r", 5, Some(HELLO)).await?;
    if writer.status().offset == 0 {
        writer.write(b"hello")?;
    }
    writer.commit(5, Some(HELLO), Labels::new()).await
}

#[tokio::test]
async fn a_committed_blob_can_be_read_and_is_known_afterwards() {
    let bench = bench();
    assert_eq!(store_hello(&bench, &bench.context).await.unwrap(), HELLO);
    let reader = bench.content.reader(&bench.context.namespace, HELLO).unwrap();
    assert_eq!(std::io::read_to_string(reader.file).unwrap(), "hello");
    let again = store_hello(&bench, &bench.context).await.unwrap_err();
    assert_eq!(again.to_string(), format!("content {HELLO}: already exists"));
}

#[tokio::test]
async fn a_ref_has_one_writer_and_resumes_where_it_stopped() {
    let bench = bench();
    let mut writer = bench.content.open_writer(&bench.context, "r", 5, None).await.unwrap();
    let locked = bench.content.open_writer(&bench.context, "r", 5, None).await.err().unwrap();
    assert!(matches!(locked, Error::Unavailable { .. }));
    writer.write(b"hel").unwrap();
    drop(writer);
    let mut writer = bench.content.open_writer(&bench.context, "r", 5, None).await.unwrap();
    assert_eq!(writer.status().offset, 3);
    writer.write(b"lo").unwrap();
    assert_eq!(writer.commit(5, None, Labels::new()).await.unwrap(), HELLO);
    assert!(bench.content.statuses(&bench.context.namespace, &Filters::all()).unwrap().is_empty());
}

#[tokio::test]
async fn a_wrong_digest_or_size_is_refused() {
    let bench = bench();
    let mut writer = bench.content.open_writer(&bench.context, "r", 0, None).await.unwrap();
    writer.write(b"hullo").unwrap();
    let error = writer.commit(0, Some(HELLO), Labels::new()).await.unwrap_err();
    assert!(error.to_string().starts_with("unexpected commit digest sha256:"), "{error}");
    let writer = bench.content.open_writer(&bench.context, "r", 0, None).await.unwrap();
    let error = writer.commit(4, None, Labels::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "unexpected commit size 5, expected 4: failed precondition");
}

#[tokio::test]
async fn another_namespace_claims_a_blob_by_its_digest_and_keeps_it() {
    let bench = bench();
    store_hello(&bench, &bench.context).await.unwrap();
    let other = Context::new(Namespace::parse("other").unwrap());
    assert!(bench.content.info(&other.namespace, HELLO).is_err());
    store_hello(&bench, &other).await.unwrap();
    bench.content.delete(&bench.context, HELLO).await.unwrap();
    bench.content.sweep().await.unwrap();
    assert!(bench.content.reader(&other.namespace, HELLO).is_ok());
    bench.content.delete(&other, HELLO).await.unwrap();
    bench.content.sweep().await.unwrap();
    assert!(!bench.content.path(HELLO).exists());
}

#[test]
fn digests_are_checked_before_they_become_paths() {
    for bad in ["", "sha256", "sha256:..", "md5:00", &HELLO.to_uppercase(), "sha256:/../x"] {
        assert!(check_digest(bad).is_err(), "{bad}");
    }
    assert!(check_digest(HELLO).is_ok());
}

#[tokio::test]
async fn what_a_power_cut_left_of_an_ingest_goes_at_the_next_start() {
    let bench = bench();
    let writer = bench.content.open_writer(&bench.context, "whole", 5, None).await.unwrap();
    drop(writer);
    let torn = bench.content.root().join("ingest/torn");
    std::fs::create_dir(&torn).unwrap();
    std::fs::write(torn.join("ref"), "").unwrap();
    let store = bench.content.0.store.clone();
    let root = bench.content.root().parent().unwrap().to_owned();
    let content = Content::open(&root, store, Events::default()).unwrap();
    assert!(!torn.exists());
    assert_eq!(content.status(&bench.context.namespace, "whole").unwrap().offset, 0);
}

proptest::proptest! {
    #[test]
    fn a_damaged_ingest_is_none_or_has_a_status(
        scoped in "(test|other|)/?[a-z/\\n]{0,6}",
        total in "[-+0-9a \\n]{0,22}",
        started in "(2024-01-01T00:00:00Z|[0-9TZ:-]{0,8})",
        expected in proptest::option::of("[a-z0-9:]{0,9}"),
        data in proptest::option::of(
            proptest::collection::vec(proptest::prelude::any::<u8>(), 0..9),
        ),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| std::fs::write(directory.path().join(name), text).unwrap();
        write("ref", scoped.as_bytes());
        write("total", total.as_bytes());
        write("startedat", started.as_bytes());
        if let Some(expected) = &expected {
            write("expected", expected.as_bytes());
        }
        if let Some(data) = &data {
            write("data", data);
        }
        let namespace = Namespace::parse("test").unwrap();
        let status = ingest::read_status(directory.path(), &namespace).unwrap();
        let wanted = scoped.strip_prefix("test/").filter(|_| data.is_some());
        proptest::prop_assert_eq!(status.as_ref().map(|status| status.reference.as_str()), wanted);
        if let Some(status) = status {
            proptest::prop_assert_eq!(status.offset, data.unwrap().len() as u64);
            proptest::prop_assert_eq!(status.total, total.trim().parse().unwrap_or(0));
            proptest::prop_assert_eq!(status.expected, expected);
        }
    }
}
