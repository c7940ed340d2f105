//! Search in bytes by sixteen at a time: without an early exit inside a block the compiler uses vectors.

const BLOCK: usize = 16;

/// The place of the first byte that `wanted` holds for.
#[inline]
pub(crate) fn find(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let blocks = bytes.chunks_exact(BLOCK);
    let rest = blocks.remainder();
    for (number, block) in blocks.enumerate() {
        if block.iter().fold(false, |hit, byte| hit | wanted(*byte)) {
            let place = block.iter().position(|byte| wanted(*byte))?;
            return Some(number * BLOCK + place);
        }
    }
    let place = rest.iter().position(|byte| wanted(*byte))?;
    Some(bytes.len() - rest.len() + place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn find_agrees_with_a_plain_search(bytes in proptest::collection::vec(0_u8..8, 0..80)) {
            prop_assert_eq!(find(&bytes, |b| b == 7), bytes.iter().position(|b| *b == 7));
        }
    }
}
