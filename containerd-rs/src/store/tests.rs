use super::*;

fn open() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("meta.redb")).unwrap();
    (directory, store)
}

#[tokio::test]
async fn a_failed_request_leaves_no_trace_beside_its_batch() {
    let (_directory, store) = open();
    let bad = store.write(|transaction| {
        transaction.put(b"a", &1)?;
        Err::<(), _>(Error::Closed)
    });
    let good = store.write(|transaction| transaction.put(b"b", &2));
    let (bad, good) = tokio::join!(bad, good);
    assert!(bad.is_err());
    good.unwrap();
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.record::<u32>(b"a").unwrap(), None);
    assert_eq!(snapshot.record::<u32>(b"b").unwrap(), Some(2));
}

#[tokio::test]
async fn committed_records_survive_a_reopen() {
    let (directory, store) = open();
    store.write(|transaction| transaction.put(&key("t", &["x", "y"]), &"z")).await.unwrap();
    drop(store);
    let store = Store::open(&directory.path().join("meta.redb")).unwrap();
    let found: Vec<String> = store.snapshot().unwrap().records(&prefix("t", &["x"])).unwrap();
    assert_eq!(found, ["z"]);
}

#[tokio::test]
async fn a_panicking_request_costs_only_itself() {
    let (_directory, store) = open();
    let outcome = store.write::<(), _>(|_| panic!("on purpose")).await;
    assert!(matches!(outcome, Err(Error::Closed)));
    store.write(|transaction| transaction.put(b"k", &1)).await.unwrap();
}

#[tokio::test]
async fn scans_see_the_overlay_and_stop_at_the_prefix() {
    let (_directory, store) = open();
    store
        .write(|transaction| {
            transaction.put(&key("t", &["a", "1"]), &1)?;
            transaction.put(&key("t", &["ab", "2"]), &2)
        })
        .await
        .unwrap();
    let seen = store
        .write(|transaction| {
            transaction.put(&key("t", &["a", "3"]), &3)?;
            transaction.remove(&key("t", &["a", "1"]));
            transaction.records::<u32>(&prefix("t", &["a"]))
        })
        .await
        .unwrap();
    assert_eq!(seen, [3]);
}
