use proptest::prelude::*;

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
async fn a_new_database_has_no_name_before_something_in_it_is_durable() {
    let (directory, store) = open();
    let file = directory.path().join("meta.redb");
    assert!(!file.exists());
    store.write_when(Durable::Later, |transaction| transaction.put(b"a", &1)).await.unwrap();
    assert_eq!(store.snapshot().unwrap().record::<u32>(b"a").unwrap(), Some(1));
    assert!(!file.exists());
    store.write(|transaction| transaction.put(b"b", &2)).await.unwrap();
    assert_eq!(after_a_power_cut(directory.path(), b"a"), Some(1));
    assert_eq!(after_a_power_cut(directory.path(), b"b"), Some(2));
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "meta.reserve")
        .collect();
    assert_eq!(left, ["meta.redb"]);
}

#[tokio::test]
async fn a_database_is_opened_once_at_a_time_also_before_it_has_a_name() {
    let (directory, store) = open();
    let file = directory.path().join("meta.redb");
    let refused = |again: Result<Store>| {
        let text = again.map(drop).unwrap_err().to_string();
        assert!(text.contains("in use by another process"), "{text}");
    };
    refused(Store::open(&file));
    store.write(|transaction| transaction.put(b"a", &1)).await.unwrap();
    refused(Store::open(&file));
    drop(store);
    assert_eq!(Store::open(&file).unwrap().snapshot().unwrap().record(b"a").unwrap(), Some(1));
}

/// What is left of `name` when the power fails now.
fn after_a_power_cut(directory: &Path, name: &[u8]) -> Option<u32> {
    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join("meta.redb");
    std::fs::copy(directory.join("meta.redb"), &file).unwrap();
    Store::open(&file).unwrap().snapshot().unwrap().record(name).unwrap()
}

#[tokio::test]
async fn what_may_come_later_is_seen_at_once_and_on_the_disk_with_the_next() {
    let (directory, store) = open();
    store.write(|transaction| transaction.put(b"a", &1)).await.unwrap();
    let removal = |transaction: &mut Transaction<'_>| {
        transaction.remove(b"a");
        Ok(())
    };
    store.write_when(Durable::Later, removal).await.unwrap();
    assert_eq!(store.snapshot().unwrap().record::<u32>(b"a").unwrap(), None);
    assert_eq!(after_a_power_cut(directory.path(), b"a"), Some(1));
    store.write(|transaction| transaction.put(b"b", &2)).await.unwrap();
    assert_eq!(after_a_power_cut(directory.path(), b"a"), None);
    assert_eq!(after_a_power_cut(directory.path(), b"b"), Some(2));

    store.write_when(Durable::Later, |transaction| transaction.put(b"c", &3)).await.unwrap();
    drop(store);
    assert_eq!(after_a_power_cut(directory.path(), b"c"), Some(3), "an end in order writes it");
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

proptest! {
    #[test]
    fn a_key_is_its_fields(parts in proptest::collection::vec("\\PC{0,6}", 0..5)) {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let bytes = key("image", &parts);
        prop_assert_eq!(&fields(&bytes)[1..], &parts[..]);
        prop_assert!(prefix("image", &parts).starts_with(&bytes));
        prop_assert!(parts.iter().all(|part| check_name("name", part).is_ok() != part.is_empty()));
    }

    #[test]
    fn a_damaged_record_is_told_with_its_key(
        edits in proptest::collection::vec((any::<usize>(), 0_usize..9, 0..WORDS.len()), 0..4),
    ) {
        for text in [IMAGE, CONTAINER, LEASE, BLOB, SNAPSHOT] {
            let mut text = text.replace('T', r#""2024-01-01T00:00:00Z""#).into_bytes();
            for (at, cut, word) in &edits {
                let at = at % (text.len() + 1);
                text.splice(at..(at + cut).min(text.len()), WORDS[*word].bytes());
            }
            damaged::<record::Image>(&text)?;
            damaged::<record::Container>(&text)?;
            damaged::<crate::lease::Lease>(&text)?;
            damaged::<crate::content::Info>(&text)?;
            damaged::<crate::snapshot::Info>(&text)?;
        }
    }
}

const IMAGE: &str = r#"{"name":"n","labels":{"a":"b"},"target":{"media_type":"m","digest":"d","size":1},"created_at":T,"updated_at":T}"#;
const CONTAINER: &str = r#"{"id":"i","runtime":{"name":"r","options":{"type_url":"u","value":"AQI="}},"spec":null,"created_at":T,"updated_at":T,"extensions":{"x":{"type_url":"","value":""}}}"#;
const LEASE: &str = r#"{"id":"i","created_at":T,"labels":{}}"#;
const BLOB: &str = r#"{"digest":"d","size":1,"created_at":T,"updated_at":T,"labels":{"k":"v"}}"#;
const SNAPSHOT: &str = r#"{"id":1,"name":"n","kind":"Active","parent":"","created_at":T,"updated_at":T,"usage":{"size":1,"inodes":2}}"#;
const WORDS: &[&str] =
    &["null", "[]", "{}", "\"\"", "-1", ",", "\"", "18446744073709551616", "\\ud800", "\0", "Z+1"];

/// Told in one line with its key, or the same when it is written again.
fn damaged<T>(text: &[u8]) -> std::result::Result<(), TestCaseError>
where
    T: DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug,
{
    match decode::<T>(b"table\0key", text) {
        Ok(record) => {
            let again = decode::<T>(b"table\0key", &serde_json::to_vec(&record).unwrap()).unwrap();
            prop_assert_eq!(again, record);
        }
        Err(error) => prop_assert!(error.to_string().contains("table/key"), "{}", error),
    }
    Ok(())
}
