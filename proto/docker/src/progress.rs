//! Progress messages of pull, push, load, import and build: one JSON object a line.

use serde::{Deserialize, Serialize};

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<Detail>,
    /// The bar as text, sent below API 1.48.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// How far along.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<String>,
    #[serde(rename = "hidecounts", skip_serializing_if = "Option::is_none")]
    pub hide_counts: Option<bool>,
}

/// An error after the headers were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    pub message: String,
}

impl Message {
    /// A line without a bar.
    #[must_use]
    pub fn status(id: Option<&str>, text: impl Into<String>) -> Self {
        Self { id: id.map(str::to_owned), status: Some(text.into()), ..Self::default() }
    }

    /// A line of a layer, with the (possibly empty) detail that dockerd always gives there.
    #[must_use]
    pub fn layer(id: &str, text: impl Into<String>, current: i64, total: i64) -> Self {
        Self {
            progress_detail: Some(Detail { current, total, ..Detail::default() }),
            ..Self::status(Some(id), text)
        }
    }

    /// Text of a build or load.
    #[must_use]
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: Some(text.into()), ..Self::default() }
    }

    /// The last message of a failed stream.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        let message = text.into();
        Self {
            error_detail: Some(ErrorDetail { code: None, message: message.clone() }),
            error: Some(message),
            ..Self::default()
        }
    }

    /// The line as sent, ended with CRLF as dockerd does.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push_str("\r\n");
        line
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_dockerds() {
        assert_eq!(
            Message::layer("abc", "Downloading", 5, 10).to_line(),
            "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":5,\"total\":10},\"id\":\"abc\"}\r\n"
        );
        assert_eq!(
            Message::error("no").to_line(),
            "{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}\r\n"
        );
    }
}
