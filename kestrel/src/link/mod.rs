//! The link to the host. Its wire format is written down in docs/agent-protocol.md, and golden frames lie in golden/.
pub mod answer;
pub mod body;
pub mod control;
pub mod http;
pub mod port;
pub mod protocol;
pub mod service;
pub mod stream;
pub mod sync;
pub mod vsock;
