//! The agent's resources that are asked for in a line: questions of the control port. What HTTP/2 offers besides is in http.rs.

use super::answer::Answer;
use super::protocol::Ask;
use crate::config::GuestConfig;
use crate::error::AgentError;
use crate::log_ring::Line;
use crate::state::State;
use crate::workload::supervisor::{Command, EndMode};
use serde::{Deserialize, Serialize};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Log text in one answer. Escaped, and with all that goes with it, it stays far below [`super::protocol::LONGEST_LINE_TO_HOST`].
const LOG_BATCH: usize = 16 * 1024;
/// The longest time that a host may give a workload to end.
const LONGEST_SHUTDOWN_MS: u64 = 600_000;

/// The agent's own health, which it has as long as it answers.
pub(super) const HEALTH: &str = r#"{"status":"ok"}"#;

/// What requests act upon.
#[derive(Clone)]
pub struct Service {
    pub state: Rc<State>,
    pub commands: mpsc::Sender<Command>,
}

impl Service {
    /// Answers a question.
    pub async fn answer(&self, question: Ask) -> Answer {
        let (path, query) = question.path.split_once('?').unwrap_or((&question.path, ""));
        let query = Query::parse(query);
        let body = question.body.as_ref().map_or("", |body| body.get()).as_bytes();
        let answered = match (question.method.as_str(), path) {
            ("GET", "/v1/healthz") => Ok(Answer::new(200, HEALTH)),
            ("GET", "/v1/status") => {
                let state = self.state.clone();
                Ok(Answer::later(200, move || state.report()))
            }
            ("GET", "/v1/logs") => self.logs(&query).await,
            ("PUT", "/v1/config") => self.apply(body).await.map(|is_new| Answer::new(200, changed(is_new))),
            ("POST", "/v1/shutdown") => self.shutdown(body).await.map(|()| Answer::new(202, r#"{"status":"shutting_down"}"#)),
            (method, "/v1/healthz" | "/v1/status" | "/v1/logs" | "/v1/config" | "/v1/shutdown") => {
                Err(AgentError::wrong_method(method, path))
            }
            _ => Err(AgentError::no_resource(path)),
        };
        answered.unwrap_or_else(Answer::from)
    }

    /// Hands a configuration to the supervisor; false when the guest has this version already.
    pub(super) async fn apply(&self, text: &[u8]) -> Result<bool, AgentError> {
        if self.state.status().config_version.as_deref() == Some(&GuestConfig::version_of(text)?) {
            return Ok(false);
        }
        let config = GuestConfig::parse(text)?;
        let (answer, answered) = oneshot::channel();
        let gone = || AgentError::new(503, "shutting_down", "this guest is shutting down");
        self.commands.send(Command::Configure(Box::new(config), answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn shutdown(&self, text: &[u8]) -> Result<(), AgentError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            mode: EndMode,
            timeout_ms: Option<u64>,
        }
        let body: Body = serde_json::from_slice(text).map_err(|cause| AgentError::invalid(format!("shutdown: {cause}")))?;
        let timeout = body.timeout_ms.map(|ms| Duration::from_millis(ms.min(LONGEST_SHUTDOWN_MS)));
        self.commands
            .send(Command::Shutdown { mode: body.mode, timeout })
            .await
            .map_err(|_| AgentError::new(503, "shutting_down", "this guest is shutting down already"))
    }

    /// What there is of the log after a line, or, if that is asked for, as soon as there is anything.
    async fn logs(&self, query: &Query<'_>) -> Result<Answer, AgentError> {
        let after = query.number("after")?.unwrap_or(0);
        if query.flag("wait") {
            let mut news = self.state.watch_logs();
            while self.state.read_logs(after, 1, |slice| slice.lines.is_empty()) {
                // The state outlives all that asks it.
                let _ = news.changed().await;
            }
        }
        let state = self.state.clone();
        Ok(Answer::later(200, move || entries(&state, after)))
    }
}

/// The body that answers a configuration.
pub(super) fn changed(is_new: bool) -> String {
    format!(r#"{{"changed":{is_new}}}"#)
}

/// Lines of the log after a number, and what is missing before them.
fn entries(state: &State, after: u64) -> String {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Entry<'a> {
        Gap { gap: Gap },
        Line(&'a Line),
    }
    #[derive(Serialize)]
    struct Gap {
        from: u64,
        to: u64,
    }
    #[derive(Serialize)]
    struct Entries<'a> {
        entries: Vec<Entry<'a>>,
    }
    state.read_logs(after, LOG_BATCH, |slice| {
        let gap = slice.gap.map(|(from, to)| Entry::Gap { gap: Gap { from, to } });
        let entries = gap.into_iter().chain(slice.lines.into_iter().map(Entry::Line)).collect();
        serde_json::to_string(&Entries { entries }).unwrap_or_default()
    })
}

/// The query's flags and numbers. No value of ours needs percent-decoding.
pub(super) struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        Self(text.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, ""))).collect())
    }

    /// `?name`, `?name=true` and `?name=1` are yes.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|&(key, value)| key == name && matches!(value, "" | "1" | "true"))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|&(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, AgentError> {
        match self.0.iter().find(|(key, _)| *key == name) {
            None => Ok(None),
            Some((_, value)) => value.parse().map(Some).map_err(|_| AgentError::invalid(format!("{name} must be a whole number"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{LONGEST_LINE_TO_HOST, ToHost};
    use super::*;
    use crate::log_ring::{LONGEST_LINE, Stream};
    use serde_json::{Value, json};
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn service() -> (Service, mpsc::Receiver<Command>) {
        let (commands, inbox) = mpsc::channel(16);
        (Service { state: Rc::new(State::new("boot".into())), commands }, inbox)
    }

    fn ask(method: &str, path: &str, body: Option<Value>) -> Ask {
        let body = body.map(|body| serde_json::value::to_raw_value(&body).expect("JSON"));
        Ask { nonce: String::new(), id: 1, method: method.into(), path: path.into(), body }
    }

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// What is answered at once.
    fn answer(service: &Service, question: Ask) -> (u16, Value) {
        let answer = poll(pin!(service.answer(question))).expect("an answer at once");
        (answer.status, serde_json::from_str(&answer.into_body()).expect("JSON"))
    }

    #[test]
    fn what_an_agent_has_not_is_404_another_method_405_and_a_wrong_body_400() {
        let (service, _inbox) = service();
        for (method, path, body, status, code) in [
            ("GET", "/v1/nothing", None, 404, "not_found"),
            ("GET", "/v1/exec", None, 404, "not_found"),
            ("POST", "/v1/status?x", None, 405, "method_not_allowed"),
            ("GET", "/v1/config", None, 405, "method_not_allowed"),
            ("GET", "/v1/logs?after=-1", None, 400, "invalid"),
            ("PUT", "/v1/config", None, 400, "invalid"),
            ("PUT", "/v1/config", Some(json!({ "config_version": "" })), 400, "invalid"),
            ("POST", "/v1/shutdown", Some(json!({ "mode": "dance" })), 400, "invalid"),
        ] {
            let (found, body) = answer(&service, ask(method, path, body));
            assert_eq!((found, &body["code"]), (status, &code.into()), "{method} {path}");
        }
        assert_eq!(answer(&service, ask("GET", "/v1/healthz", None)), (200, json!({ "status": "ok" })));
        assert_eq!(answer(&service, ask("GET", "/v1/status", None)).1["boot_id"], "boot");
    }

    #[test]
    fn a_configuration_is_answered_once_it_is_applied_and_the_same_version_again_at_once() {
        let (service, mut inbox) = service();
        let question = || ask("PUT", "/v1/config", Some(json!({ "config_version": "1" })));
        let mut asked = pin!(service.answer(question()));
        assert!(poll(asked.as_mut()).is_none());
        let Ok(Command::Configure(config, applied)) = inbox.try_recv() else { panic!("a configuration") };
        assert_eq!(config.config_version, "1");
        assert!(poll(asked.as_mut()).is_none());
        applied.send(Ok(true)).expect("somebody waits");
        assert_eq!(poll(asked).expect("an answer").into_body(), r#"{"changed":true}"#);
        service.state.update(|status| status.config_version = Some("1".into()));
        assert_eq!(answer(&service, question()), (200, json!({ "changed": false })));
        assert!(inbox.try_recv().is_err());
    }

    #[test]
    fn a_shutdown_is_accepted_and_passed_on() {
        let (service, mut inbox) = service();
        let asked = answer(&service, ask("POST", "/v1/shutdown", Some(json!({ "mode": "reboot", "timeout_ms": 50 }))));
        assert_eq!(asked, (202, json!({ "status": "shutting_down" })));
        let Ok(Command::Shutdown { mode, timeout }) = inbox.try_recv() else { panic!("a shutdown") };
        assert!(mode == EndMode::Reboot && timeout == Some(Duration::from_millis(50)));
    }

    #[test]
    fn the_log_is_told_at_once_or_as_soon_as_there_is_anything() {
        let (service, _inbox) = service();
        assert_eq!(answer(&service, ask("GET", "/v1/logs?after=0", None)), (200, json!({ "entries": [] })));
        let mut waits = pin!(service.answer(ask("GET", "/v1/logs?after=0&wait", None)));
        assert!(poll(waits.as_mut()).is_none());
        service.state.log(Stream::Stdout, "one".into(), false);
        let waited = poll(waits).expect("an answer");
        // What comes before the answer is written is in it, too.
        service.state.log(Stream::Stderr, "two".into(), true);
        let body: Value = serde_json::from_str(&waited.into_body()).expect("JSON");
        assert_eq!((&body["entries"][0]["line"], &body["entries"][0]["seq"]), (&"one".into(), &1.into()));
        assert_eq!((&body["entries"][1]["stream"], &body["entries"][1]["truncated"]), (&"stderr".into(), &true.into()));
        let (_, rest) = answer(&service, ask("GET", "/v1/logs?after=1&wait", None));
        assert_eq!((&rest["entries"][0]["line"], &rest["entries"][1]), (&"two".into(), &Value::Null));
        // A number that was never given out is of an earlier boot.
        assert_eq!(answer(&service, ask("GET", "/v1/logs?after=3&wait", None)).1, body);
        assert!(poll(pin!(service.answer(ask("GET", "/v1/logs?after=2&wait", None)))).is_none());
    }

    #[test]
    fn a_log_is_read_to_its_end_in_pieces_and_says_what_is_missing() {
        let (service, _inbox) = service();
        let line = "x".repeat(100);
        for _ in 0..5000 {
            service.state.log(Stream::Stdout, line.clone(), false);
        }
        let (_, first) = answer(&service, ask("GET", "/v1/logs?after=10", None));
        assert_eq!(first["entries"][0]["gap"]["from"], 11);
        let mut next = first["entries"][0]["gap"]["to"].as_u64().expect("a number") + 1;
        let mut pieces = 0;
        while next <= 5000 {
            let (_, piece) = answer(&service, ask("GET", &format!("/v1/logs?after={}", next - 1), None));
            for entry in piece["entries"].as_array().expect("entries") {
                assert_eq!(entry["seq"], next);
                next += 1;
            }
            pieces += 1;
        }
        assert!(pieces > 5);
    }

    #[test]
    fn an_answer_fits_a_line_whatever_the_text() {
        let whole = "\u{1}".repeat(LONGEST_LINE);
        for text in ["", "\u{1}", "\"\\", "\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}", whole.as_str(), &whole.repeat(8)] {
            let (service, _inbox) = service();
            for _ in 0..5000 {
                service.state.log(Stream::Stdout, text.into(), true);
            }
            // As many lines as go beneath the bound, and then one of the longest.
            for _ in 0..LOG_BATCH / 65 {
                service.state.log(Stream::Stdout, "\u{1}".into(), true);
            }
            service.state.log(Stream::Stdout, whole.clone(), true);
            for after in (0..5300).step_by(50) {
                let answer = poll(pin!(service.answer(ask("GET", &format!("/v1/logs?after={after}"), None)))).expect("an answer");
                let line =
                    ToHost::Answer { nonce: &"f".repeat(32), id: u64::MAX, status: answer.status, body: &answer.into_body() }.encode();
                assert!(line.len() < LONGEST_LINE_TO_HOST, "{} bytes", line.len());
            }
        }
        // What can't be parsed is quoted in words that are cut.
        let (service, _inbox) = service();
        for text in ["\u{7f}", "\u{1}", "\u{ad}"] {
            let body = json!({ "mode": text.repeat(60_000) });
            let answer = poll(pin!(service.answer(ask("POST", "/v1/shutdown", Some(body))))).expect("an answer");
            assert!(answer.status == 400 && answer.into_body().len() < LONGEST_LINE_TO_HOST);
        }
    }
}
