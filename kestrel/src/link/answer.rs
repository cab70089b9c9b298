//! What is answered to a question.

use crate::error::AgentError;

/// An HTTP status and the JSON that goes with it.
pub struct Answer {
    pub status: u16,
    body: Body,
}

enum Body {
    Ready(String),
    Later(Box<dyn FnOnce() -> String>),
}

impl Answer {
    /// An answer with this body, JSON on one line.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: Body::Ready(body.into()) }
    }

    /// An answer whose body is made when its turn comes to be written: what waits for a slow host holds no text.
    pub fn later(status: u16, body: impl FnOnce() -> String + 'static) -> Self {
        Self { status, body: Body::Later(Box::new(body)) }
    }

    /// The body's text.
    pub fn into_body(self) -> String {
        match self.body {
            Body::Ready(text) => text,
            Body::Later(make) => make(),
        }
    }
}

impl From<AgentError> for Answer {
    fn from(error: AgentError) -> Self {
        Self::new(error.status, error.to_json())
    }
}
