//! The one error type that leaves the agent: a code for programs, a sentence for people, a status for HTTP.

use std::fmt;

/// An expected failure. On the wire it is `{"error": message, "code": code}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentError {
    /// Stable, snake_case, for programs.
    pub code: &'static str,
    /// What was wrong, where, and what to do about it.
    pub message: String,
    /// HTTP status that answers a request which failed so.
    pub status: u16,
}

impl AgentError {
    /// An error with the given HTTP status, code and sentence.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), status }
    }

    /// The request or document is malformed (400).
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid", message)
    }

    /// The agent could not do what it was asked (500): `what` failed because of `cause`.
    pub fn failed(what: &str, cause: impl fmt::Display) -> Self {
        Self::new(500, "failed", format!("{what}: {cause}"))
    }

    /// The body of the HTTP answer.
    pub fn to_json(&self) -> String {
        serde_json::json!({ "error": self.message, "code": self.code }).to_string()
    }
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AgentError {}
