//! The order of names with numbers in them: `v2` before `v10`.

use std::cmp::Ordering;

/// Compares runs of digits by their value, everything else byte by byte.
pub(crate) fn order(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        let (first, second) = match (one.first(), other.first()) {
            (Some(first), Some(second)) => (*first, *second),
            (first, second) => return first.is_some().cmp(&second.is_some()),
        };
        if first.is_ascii_digit() && second.is_ascii_digit() {
            let (left, right) = (digits(&mut one), digits(&mut other));
            let by_value = (left.0.len(), left.0).cmp(&(right.0.len(), right.0));
            // The one with fewer zeros before it is the smaller.
            match by_value.then(left.1.cmp(&right.1)) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        } else if first == second {
            (one, other) = (one.get(1..).unwrap_or_default(), other.get(1..).unwrap_or_default());
        } else {
            return first.cmp(&second);
        }
    }
}

/// Takes a run of digits: those that count, and how many zeros came before them.
fn digits<'a>(text: &mut &'a [u8]) -> (&'a [u8], usize) {
    let count =
        |wanted: fn(&u8) -> bool, text: &[u8]| text.iter().take_while(|&b| wanted(b)).count();
    let zeros = count(|byte| *byte == b'0', text);
    let rest = text.get(zeros..).unwrap_or_default();
    let (run, rest) = rest.split_at(count(u8::is_ascii_digit, rest));
    *text = rest;
    (run, zeros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_in_names_count_by_value() {
        let mut names = ["v10", "v2", "b", "v02", "a1b2", "a1b", "", "v1-x", "v1"];
        names.sort_by(|one, other| order(one, other));
        assert_eq!(names, ["", "a1b", "a1b2", "b", "v1", "v1-x", "v2", "v02", "v10"]);
    }

    proptest! {
        #[test]
        fn it_is_an_order(
            names in proptest::collection::vec("(v|a|0|1|9|-){0,6}", 3),
            numbers in any::<(u32, u32)>(),
        ) {
            let [a, b, c] = &names[..] else { return Ok(()) };
            prop_assert_eq!(order(a, b), order(b, a).reverse());
            prop_assert_eq!(order(a, b).is_eq(), a == b);
            if order(a, b).is_le() && order(b, c).is_le() {
                prop_assert!(order(a, c).is_le(), "{} {} {}", a, b, c);
            }
            prop_assert_eq!(order(&format!("v{}-x", numbers.0), &format!("v{}-x", numbers.1)), numbers.0.cmp(&numbers.1));
        }
    }
}
