//! Generated names: `adjective_scientist`.

const ADJECTIVES: &[&str] = &[
    "able", "amber", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "cheerful",
    "civil", "clear", "clever", "cosy", "crisp", "curious", "daring", "eager", "earnest", "easy",
    "fair", "fluent", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "happy",
    "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow",
    "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "plain", "polite", "proud",
    "quick", "quiet", "ready", "sharp", "silent", "sincere", "smart", "snug", "sober", "spry",
    "steady", "sunny", "swift", "tidy", "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];

const SURNAMES: &[&str] = &[
    "abel",
    "agnesi",
    "ampere",
    "babbage",
    "bernoulli",
    "bohr",
    "boole",
    "bose",
    "cantor",
    "carson",
    "cerf",
    "church",
    "clarke",
    "codd",
    "conway",
    "copernicus",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "einstein",
    "engelbart",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "goodall",
    "hamilton",
    "hawking",
    "herschel",
    "hertz",
    "hilbert",
    "hodgkin",
    "hopper",
    "hypatia",
    "joliot",
    "kepler",
    "knuth",
    "kovalevskaya",
    "lamarr",
    "lamport",
    "liskov",
    "lovelace",
    "maxwell",
    "mayer",
    "mclean",
    "meitner",
    "mendel",
    "mirzakhani",
    "moore",
    "newton",
    "noether",
    "nobel",
    "pascal",
    "pasteur",
    "perlman",
    "planck",
    "ramanujan",
    "ritchie",
    "rubin",
    "shannon",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wiles",
    "wozniak",
    "wu",
    "yalow",
    "zuse",
];

/// A name for the given attempt; later attempts carry a digit.
pub(super) fn generate(attempt: u8) -> String {
    let mut random = [0_u8; 3];
    if getrandom::fill(&mut random).is_err() {
        random = [attempt, attempt, attempt];
    }
    let adjective = ADJECTIVES[usize::from(random[0]) % ADJECTIVES.len()];
    let surname = SURNAMES[usize::from(random[1]) % SURNAMES.len()];
    if attempt == 0 {
        format!("{adjective}_{surname}")
    } else {
        format!("{adjective}_{surname}{}", random[2] % 10)
    }
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(super) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_valid_and_bad_ones_are_not() {
        for attempt in 0..50 {
            assert!(is_valid(&generate(attempt)));
        }
        for bad in ["", "a", "-a", "a b", "a/b", "ä1"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
