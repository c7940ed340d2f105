//! Go's `path.Match`, for the `reference` filter: `*` and `?` stop at a slash, `[a-z]`, `\` escapes.

pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    walk(&pattern, &text)
}

/// Whether every class ends and every `\` has something to escape.
pub(crate) fn is_pattern(pattern: &str) -> bool {
    let mut letters = pattern.chars();
    let mut in_class = None;
    while let Some(letter) = letters.next() {
        match (letter, in_class) {
            ('\\', _) => {
                if letters.next().is_none() {
                    return false;
                }
                in_class = in_class.map(|count| count + 1);
            }
            ('[', None) => in_class = Some(0),
            // A class has something in it.
            (']', Some(1..)) => in_class = None,
            ('^', Some(0)) => {}
            (_, Some(count)) => in_class = Some(count + 1),
            _ => {}
        }
    }
    in_class.is_none()
}

fn walk(pattern: &[char], text: &[char]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    match first {
        '*' => {
            let limit = text.iter().position(|c| *c == '/').unwrap_or(text.len());
            (0..=limit).any(|skip| text.get(skip..).is_some_and(|text| walk(rest, text)))
        }
        '?' => text.split_first().is_some_and(|(c, text)| *c != '/' && walk(rest, text)),
        '[' => {
            let Some(end) = rest.iter().skip(1).position(|c| *c == ']').map(|at| at + 1) else {
                return false;
            };
            let (class, rest) = rest.split_at(end);
            text.split_first()
                .is_some_and(|(c, text)| in_class(class, *c) && walk(&rest[1..], text))
        }
        '\\' => match (rest.split_first(), text.split_first()) {
            (Some((wanted, rest)), Some((c, text))) => wanted == c && walk(rest, text),
            _ => false,
        },
        wanted => text.split_first().is_some_and(|(c, text)| c == wanted && walk(rest, text)),
    }
}

fn in_class(class: &[char], c: char) -> bool {
    let (negated, class) = match class.split_first() {
        Some(('^', rest)) => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    let mut at = 0;
    while let Some(low) = class.get(at) {
        match (class.get(at + 1), class.get(at + 2)) {
            (Some('-'), Some(high)) => {
                found |= (*low..=*high).contains(&c);
                at += 3;
            }
            _ => {
                found |= *low == c;
                at += 1;
            }
        }
    }
    found != negated && c != '/'
}

#[cfg(test)]
mod tests {
    use super::{is_pattern, matches};

    #[test]
    fn stars_stop_at_slashes() {
        for (pattern, text, expected) in [
            ("busy*", "busybox", true),
            ("busy*:lat*", "busybox:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b?x", "box", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a\\*", "a*", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_that_end_in_the_middle_are_none() {
        for good in ["", "a*", "[a-z]?", "[^a]", "\\[", "[\\]]"] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["[", "[]", "[^]", "[a", "a\\", "[\\]"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }
}
