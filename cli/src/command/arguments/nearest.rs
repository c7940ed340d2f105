//! Which word a mistyped one was meant to be.

/// The verb that differs from `typed` by at most two letters, or that it begins.
pub(super) fn nearest<'a>(typed: &str, verbs: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = |verb: &&str| {
        (typed.len() > 2 && verb.starts_with(typed))
            || distance(typed, verb) <= typed.len().min(6) / 3
    };
    verbs.filter(close).min_by_key(|verb| distance(typed, verb))
}

/// How many letters must be put in, left out or changed, or neighbours exchanged.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let width = other.len() + 1;
    let mut table = vec![0; (one.len() + 1) * width];
    let at = |row: usize, column: usize| row * width + column;
    for row in 0..=one.len() {
        for column in 0..=other.len() {
            let get = |row, column| table.get(at(row, column)).copied().unwrap_or(0);
            let best = if row == 0 || column == 0 {
                row + column
            } else {
                let changed = usize::from(one.get(row - 1) != other.get(column - 1));
                let mut best = (get(row - 1, column) + 1)
                    .min(get(row, column - 1) + 1)
                    .min(get(row - 1, column - 1) + changed);
                if row > 1
                    && column > 1
                    && one.get(row - 1) == other.get(column - 2)
                    && one.get(row - 2) == other.get(column - 1)
                {
                    best = best.min(get(row - 2, column - 2) + 1);
                }
                best
            };
            if let Some(cell) = table.get_mut(at(row, column)) {
                *cell = best;
            }
        }
    }
    table.last().copied().unwrap_or(0)
}
