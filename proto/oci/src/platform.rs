//! Platforms of images: parsing of `os/arch[/variant]`, normal forms, and which platforms a host
//! runs, best first. Document: image-spec, image-index.md; behaviour of containerd's `platforms`.

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Compat: containerd's text, which dockerd passes on for `--platform`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    #[error("\"{0}\": unknown operating system or architecture: invalid argument")]
    Unknown(String),
    #[error(
        "\"{part}\" is an invalid component of \"{text}\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Component { part: String, text: String },
    #[error("\"{0}\": cannot parse platform specifier: invalid argument")]
    Parts(String),
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Self::default()
        }
    }

    /// The platform this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new("linux", architecture, "").normalised()
    }

    /// Parses `os`, `arch`, `os/arch` or `os/arch/variant`.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            let valid = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            if part.is_empty() || !part.bytes().all(valid) {
                return Err(PlatformError::Component {
                    part: (*part).to_owned(),
                    text: text.to_owned(),
                });
            }
        }
        match parts.as_slice() {
            [one] => {
                let os = normal_os(one);
                if KNOWN_OS.contains(&os.as_str()) {
                    return Ok(Self { os, ..Self::host() });
                }
                let alone = Self::new("linux", one, "").normalised();
                if KNOWN_ARCH.contains(&alone.architecture.as_str()) {
                    return Ok(alone);
                }
                Err(PlatformError::Unknown(text.to_owned()))
            }
            [os, architecture] => Ok(Self::new(os, architecture, "").normalised()),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant).normalised()),
            _ => Err(PlatformError::Parts(text.to_owned())),
        }
    }

    /// The same platform in its usual spelling: `x86_64` is `amd64`, `arm64/v8` is `arm64`.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let mut architecture = self.architecture.to_lowercase();
        let mut variant = self.variant.to_lowercase();
        match architecture.as_str() {
            "i386" => (architecture, variant) = ("386".into(), String::new()),
            "x86_64" | "x86-64" | "amd64" => {
                architecture = "amd64".into();
                if variant == "v1" {
                    variant.clear();
                }
            }
            "aarch64" | "arm64" => {
                architecture = "arm64".into();
                if matches!(variant.as_str(), "8" | "v8" | "v8.0") {
                    variant.clear();
                }
            }
            "armhf" => (architecture, variant) = ("arm".into(), "v7".into()),
            "armel" => (architecture, variant) = ("arm".into(), "v6".into()),
            "arm" => {
                variant = match variant.as_str() {
                    "" | "7" => "v7".into(),
                    "5" | "6" | "8" => format!("v{variant}"),
                    _ => variant,
                }
            }
            _ => {}
        }
        Self { architecture, variant, os: normal_os(&self.os), ..self.clone() }
    }

    /// How well an image for `candidate` runs here: 0 is best, `None` is not at all.
    pub fn rank(&self, candidate: &Self) -> Option<usize> {
        let candidate = candidate.normalised();
        self.runs().iter().position(|own| {
            own.os == candidate.os
                && own.architecture == candidate.architecture
                && own.variant == candidate.variant
        })
    }

    /// Everything a host of this platform runs, itself first.
    fn runs(&self) -> Vec<Self> {
        let own = self.normalised();
        let with = |architecture: &str, variant: String| Self {
            architecture: architecture.to_owned(),
            variant,
            ..own.clone()
        };
        let mut all = vec![own.clone()];
        match own.architecture.as_str() {
            "amd64" => {
                let level = variant_number(&own.variant).unwrap_or(1).min(LEVELS);
                all.extend(
                    (1..level).rev().map(|v| {
                        with("amd64", if v == 1 { String::new() } else { format!("v{v}") })
                    }),
                );
                all.push(with("386", String::new()));
            }
            "arm64" => {
                if !own.variant.is_empty() {
                    all.push(with("arm64", String::new()));
                }
                all.extend([8, 7, 6, 5].map(|v| with("arm", format!("v{v}"))));
            }
            "arm" => {
                let level = variant_number(&own.variant).unwrap_or(7).min(LEVELS);
                all.extend((5..level).rev().map(|v| with("arm", format!("v{v}"))));
            }
            _ => {}
        }
        all
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.write_str("unknown");
        }
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

fn normal_os(os: &str) -> String {
    match os.to_lowercase().as_str() {
        "" => "linux".into(),
        "macos" => "darwin".into(),
        other => other.to_owned(),
    }
}

fn variant_number(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

/// No architecture has more levels, whatever number a client names.
const LEVELS: u32 = 10;
const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];
const KNOWN_ARCH: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_come_to_one_form() {
        for (typed, shown) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("armhf", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("Linux/AArch64", "linux/arm64"),
        ] {
            assert_eq!(Platform::parse(typed).unwrap().to_string(), shown, "{typed}");
        }
        assert!(Platform::parse("linux/a/b/c").is_err());
        assert!(Platform::parse("linux//x").is_err());
        assert!(Platform::parse("nonsense").is_err());
    }

    #[test]
    fn older_arm_runs_on_newer_in_order() {
        let v7 = Platform::parse("linux/arm/v7").unwrap();
        let rank = |text: &str| v7.rank(&Platform::parse(text).unwrap());
        assert_eq!(rank("linux/arm/v7"), Some(0));
        assert_eq!(rank("linux/arm/v6"), Some(1));
        assert_eq!(rank("linux/arm/v5"), Some(2));
        assert_eq!(rank("linux/arm64"), None);
        let arm64 = Platform::parse("linux/arm64").unwrap();
        assert_eq!(arm64.rank(&v7), Some(2));
        let amd64 = Platform::parse("linux/amd64/v3").unwrap();
        assert_eq!(amd64.rank(&Platform::new("linux", "amd64", "")), Some(2));
        assert_eq!(amd64.rank(&Platform::new("windows", "amd64", "")), None);
        assert_eq!(amd64.rank(&Platform::new("unknown", "unknown", "")), None);
    }
}
