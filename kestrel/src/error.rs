//! The one error type that leaves the agent: a code for programs, a sentence for people, a status for HTTP.

use std::fmt;

/// A sentence may quote what it was given, and must fit a line of the control port.
pub const LONGEST_MESSAGE: usize = 4 * 1024;

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
        let mut message = message.into();
        cut(&mut message, LONGEST_MESSAGE);
        Self { code, message, status }
    }

    /// The request or document is malformed (400).
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid", message)
    }

    /// The agent could not do what it was asked (500): `what` failed because of `cause`.
    pub fn failed(what: &str, cause: impl fmt::Display) -> Self {
        Self::new(500, "failed", format!("{what}: {cause}"))
    }

    /// There is no such resource (404).
    pub fn no_resource(path: &str) -> Self {
        Self::new(404, "not_found", format!("this agent has no resource {path}"))
    }

    /// The resource does not know this method (405).
    pub fn wrong_method(method: &str, path: &str) -> Self {
        Self::new(405, "method_not_allowed", format!("{method} is not allowed on {path}"))
    }

    /// The body of the answer.
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

/// Cuts a text to at most so many bytes, between two characters. Says whether there was anything to cut.
pub fn cut(text: &mut String, most: usize) -> bool {
    if text.len() <= most {
        return false;
    }
    let end = (0..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut text = "a€b".to_owned();
        assert!(!cut(&mut text, 5));
        assert!(cut(&mut text, 3));
        assert_eq!(text, "a");
        assert!(AgentError::invalid("€".repeat(LONGEST_MESSAGE)).message.len() <= LONGEST_MESSAGE);
    }
}
