//! Rules that all labelled objects share: size limit, field masks.

use crate::error::{Error, Result};
use crate::store::record::Labels;

/// containerd's limit on key and value together.
pub(crate) fn check_labels(labels: &Labels) -> Result<()> {
    for (name, value) in labels {
        if name.len() + value.len() > MAX {
            // Compat: only the first ten characters of the key are told.
            let short: String = name.chars().take(10).collect();
            return Err(Error::invalid(format!(
                "label key and value length ({} bytes) greater than maximum size ({MAX} bytes), \
                 key: {short}",
                name.len() + value.len()
            )));
        }
    }
    Ok(())
}

/// One path of a field mask that may speak of labels: applies it and says whether it did.
pub(crate) fn apply_path(path: &str, labels: &mut Labels, new: &Labels) -> bool {
    if path == "labels" {
        labels.clone_from(new);
        return true;
    }
    let Some(name) = path.strip_prefix("labels.") else { return false };
    match new.get(name) {
        Some(value) => labels.insert(name.to_owned(), value.clone()),
        None => labels.remove(name),
    };
    true
}

/// Compat: a label set to nothing is a label removed.
pub(crate) fn drop_empty(labels: &mut Labels) {
    labels.retain(|_, value| !value.is_empty());
}

const MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mask_path_sets_or_removes_one_label() {
        let mut labels = Labels::from([("a".into(), "1".into()), ("b.c/d".into(), "2".into())]);
        let new = Labels::from([("b.c/d".into(), "3".into())]);
        assert!(apply_path("labels.b.c/d", &mut labels, &new));
        assert!(apply_path("labels.a", &mut labels, &new));
        assert!(!apply_path("target", &mut labels, &new));
        assert_eq!(labels, new);
    }

    #[test]
    fn labels_end_at_4096_bytes() {
        let labels = |length| Labels::from([("k".to_owned(), "v".repeat(length))]);
        assert!(check_labels(&labels(4095)).is_ok());
        assert!(check_labels(&labels(4096)).is_err());
    }

    proptest! {
        #[test]
        fn a_mask_of_every_name_makes_the_new_labels(
            mut labels in proptest::collection::btree_map("\\PC{0,4}", "[a-z]{0,2}", 0..5),
            new in proptest::collection::btree_map("\\PC{0,4}", "[a-z]{0,2}", 0..5),
            other in "\\PC{0,6}",
        ) {
            let names: Vec<String> = labels.keys().chain(new.keys()).cloned().collect();
            for name in names {
                let path = format!("labels.{name}");
                prop_assert!(apply_path(&path, &mut labels, &new));
            }
            prop_assert_eq!(&labels, &new);
            if !other.starts_with("labels") {
                prop_assert!(!apply_path(&other, &mut labels, &new));
                prop_assert_eq!(&labels, &new);
            }
        }

        #[test]
        fn labels_have_room_for_so_much(name in 0_usize..5000, value in 0_usize..5000) {
            let labels = Labels::from([("é".repeat(name / 2), "v".repeat(value))]);
            prop_assert_eq!(check_labels(&labels).is_ok(), name / 2 * 2 + value <= 4096);
        }
    }
}
