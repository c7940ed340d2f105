//! Go's `path.Match`, for the `reference` filter: `*` and `?` stop at a slash, `[a-z]`, `\` escapes.

/// One thing that a pattern wants of a text.
#[derive(Debug)]
enum Want {
    /// A star.
    Any,
    One,
    Letter(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Takes time in proportion to both lengths: when something does not match, only the last star takes
/// more. Those before it need not, as no star passes a slash.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some(wants) = read(pattern) else { return false };
    let text: Vec<char> = text.chars().collect();
    let (mut want, mut at) = (0, 0);
    let mut star = None;
    loop {
        match (wants.get(want), text.get(at)) {
            (None, None) => return true,
            (Some(Want::Any), _) => {
                want += 1;
                star = Some((want, at));
                continue;
            }
            (Some(wanted), Some(letter)) if wanted.takes(*letter) => {
                (want, at) = (want + 1, at + 1);
                continue;
            }
            _ => {}
        }
        match star {
            Some((after, taken)) if text.get(taken).is_some_and(|letter| *letter != '/') => {
                star = Some((after, taken + 1));
                (want, at) = (after, taken + 1);
            }
            _ => return false,
        }
    }
}

/// Whether every class ends and every `\` has something to escape.
pub(crate) fn is_pattern(pattern: &str) -> bool {
    read(pattern).is_some()
}

impl Want {
    fn takes(&self, letter: char) -> bool {
        match self {
            Self::Any | Self::One => letter != '/',
            Self::Letter(wanted) => *wanted == letter,
            Self::Class { negated, ranges } => {
                let found = ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter));
                found != *negated && letter != '/'
            }
        }
    }
}

fn read(pattern: &str) -> Option<Vec<Want>> {
    let mut letters = pattern.chars().peekable();
    let mut wants = Vec::new();
    while let Some(letter) = letters.next() {
        wants.push(match letter {
            '*' => Want::Any,
            '?' => Want::One,
            '\\' => Want::Letter(letters.next()?),
            '[' => {
                let negated = letters.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                // A class has something in it.
                while ranges.is_empty() || letters.next_if_eq(&']').is_none() {
                    let low = of_class(&mut letters)?;
                    let is_range = letters.next_if_eq(&'-').is_some();
                    ranges.push((low, if is_range { of_class(&mut letters)? } else { low }));
                }
                Want::Class { negated, ranges }
            }
            letter => Want::Letter(letter),
        });
    }
    Some(wants)
}

/// A letter of a class; those that mean something there are escaped.
fn of_class(letters: &mut impl Iterator<Item = char>) -> Option<char> {
    match letters.next()? {
        '\\' => letters.next(),
        ']' | '-' => None,
        letter => Some(letter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            ("[\\]a]b", "]b", true),
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

    /// Tries every length of every star.
    fn tried(wants: &[Want], text: &[char]) -> bool {
        let Some((first, rest)) = wants.split_first() else { return text.is_empty() };
        let reach = text.iter().position(|c| *c == '/').unwrap_or(text.len());
        match first {
            Want::Any => (0..=reach).any(|skip| tried(rest, &text[skip..])),
            one => text.split_first().is_some_and(|(c, text)| one.takes(*c) && tried(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn what_matches_is_what_every_way_to_read_it_says(
            pattern in "[ab/*?\\[\\]^\\\\-]{0,8}", text in "[ab/\\]-]{0,8}",
        ) {
            let wanted = read(&pattern).is_some_and(|wants| tried(&wants, &text.chars().collect::<Vec<_>>()));
            prop_assert_eq!(matches(&pattern, &text), wanted);
        }

        #[test]
        fn a_pattern_of_stars_takes_no_time(stars in 20_usize..2000) {
            let (pattern, text) = ("*a".repeat(20), "a".repeat(stars));
            prop_assert!(!matches(&"*a".repeat(stars + 1), &text));
            let last = |text: &str, letter: char| text.to_owned() + &letter.to_string();
            prop_assert!(matches(&last(&pattern, 'b'), &last(&text, 'b')));
            prop_assert!(!matches(&last(&pattern, 'c'), &last(&text, 'b')));
        }
    }
}
