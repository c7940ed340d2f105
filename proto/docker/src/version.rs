//! API versions: `1.41` and the like, ordered.

use std::fmt;
use std::str::FromStr;

/// A version of the Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    pub major: u16,
    pub minor: u16,
}

impl ApiVersion {
    /// The newest version this crate describes.
    pub const MAX: Self = Self::new(1, 51);
    /// The oldest version the engine answers.
    pub const MIN: Self = Self::new(1, 24);

    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// True below `1.minor`.
    #[must_use]
    pub fn below(self, minor: u16) -> bool {
        self < Self::new(1, minor)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The text is not `major.minor`.
#[derive(Debug, thiserror::Error)]
#[error("not an API version: {0}")]
pub struct ParseVersionError(String);

impl FromStr for ApiVersion {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.parse().ok().filter(|_| !text.starts_with('+'));
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self::new(number(major)?, number(minor)?)))
            .ok_or_else(|| ParseVersionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_not_by_text() {
        let old: ApiVersion = "1.9".parse().unwrap();
        assert!(old < ApiVersion::MIN && old.below(24) && !ApiVersion::MAX.below(51));
        assert_eq!(ApiVersion::MAX.to_string(), "1.51");
        assert!("one".parse::<ApiVersion>().is_err());
    }
}
