use super::super::sync::sync_line;
use super::*;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;

/// Holds questions until a test lets them go, by the number behind `/held/`; its streams echo what they are sent, so that a test sees where its bytes begin.
struct Echo {
    agent: AgentInfo,
    streams: RefCell<Vec<DuplexStream>>,
    clock: Cell<i64>,
    greeted: Cell<u32>,
    status: watch::Sender<u32>,
    held: RefCell<HashMap<u64, oneshot::Sender<()>>>,
    open: Rc<Cell<usize>>,
    most_open: Cell<usize>,
}

struct Open(Rc<Cell<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Endpoint for Echo {
    type Stream = DuplexStream;
    type Change = u32;
    fn agent(&self) -> &AgentInfo {
        &self.agent
    }
    fn greeted(&self, _: &Hello) {
        self.greeted.set(self.greeted.get() + 1);
    }
    fn now_ms(&self) -> i64 {
        self.clock.get()
    }
    fn set_clock(&self, unix_ms: i64) {
        self.clock.set(unix_ms);
    }
    fn status(&self) -> String {
        format!(r#"{{"count":{}}}"#, *self.status.borrow())
    }
    fn watch_status(&self) -> watch::Receiver<u32> {
        self.status.subscribe()
    }
    async fn answer(&self, question: Ask) -> Answer {
        self.open.set(self.open.get() + 1);
        self.most_open.set(self.most_open.get().max(self.open.get()));
        let _open = Open(self.open.clone());
        if let Some(number) = question.path.strip_prefix("/held/") {
            let (release, released) = oneshot::channel();
            self.held.borrow_mut().insert(number.parse().expect("a number"), release);
            let _ = released.await;
        }
        let length = question.path.strip_prefix("/long/").map_or(0, |length| length.parse().expect("a number"));
        let body = question.body.map_or(Value::Null, |body| serde_json::from_str(body.get()).expect("JSON"));
        Answer::new(200, json!({ "method": question.method, "body": body, "filling": "x".repeat(length) }).to_string())
    }
    async fn open_stream(&self) -> Result<DuplexStream, AgentError> {
        self.streams.borrow_mut().pop().ok_or_else(|| AgentError::new(503, "stream_port", "there is none"))
    }
    async fn serve(&self, mut stream: Resumed<DuplexStream>) {
        let mut buffer = [0u8; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let _ = stream.write_all(&buffer[..count]).await;
        }
    }
}

struct Bench {
    control: DuplexStream,
    /// The host's ends, the next session's last.
    streams: Vec<DuplexStream>,
    echo: Rc<Echo>,
}

const FIRST: &str = "0123456789abcdef0123456789abcdef";
const SECOND: &str = "ffffffffffffffffffffffffffffffff";
const THIRD: &str = "00000000000000000000000000000000";
const NOON_MS: i64 = 1_767_355_200_000;
/// Longer than any test takes.
const NEVER_MS: u64 = 60_000;
const ROOMY: usize = 1 << 18;
/// A pipe that holds less than a line.
const NARROW: usize = 64;

fn hello(nonce: &str, generation: u64) -> String {
    hello_with(nonce, generation, NEVER_MS)
}

fn hello_with(nonce: &str, generation: u64, beat_ms: u64) -> String {
    let wall_time = wall_time::format(NOON_MS);
    let identity = json!({ "vm_id": 1, "name": "a", "hostname": "a" });
    let line = json!({ "type": "hello", "protocol": PROTOCOL, "nonce": nonce, "generation": generation, "wall_time": wall_time, "beat_ms": beat_ms, "identity": identity });
    format!("\n{line}\n")
}

fn ask(nonce: &str, id: u64, path: &str) -> String {
    format!("\n{}\n", json!({ "type": "ask", "nonce": nonce, "id": id, "method": "GET", "path": path }))
}

fn ask_for_stream(nonce: &str, id: u64, stream: &str) -> String {
    let body = json!({ "nonce": stream });
    format!("\n{}\n", json!({ "type": "ask", "nonce": nonce, "id": id, "method": "POST", "path": "/v1/stream", "body": body }))
}

impl Bench {
    fn start(room: usize) -> Self {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let (host, guest) = tokio::io::duplex(4096);
            ours.push(host);
            theirs.push(guest);
        }
        let agent = AgentInfo { version: "t", protocol: PROTOCOL, kernel: "k".into(), boot_id: "b".into(), vsock_port: None };
        let echo = Rc::new(Echo {
            agent,
            streams: RefCell::new(theirs),
            clock: Cell::new(NOON_MS),
            greeted: Cell::new(0),
            status: watch::Sender::new(0),
            held: RefCell::default(),
            open: Rc::default(),
            most_open: Cell::new(0),
        });
        let (control, guest) = tokio::io::duplex(room);
        tokio::task::spawn_local(converse(guest, echo.clone()));
        Self { control, streams: ours, echo }
    }

    /// A session with its ack and its first status read.
    async fn begun(room: usize) -> Self {
        let mut bench = Self::start(room);
        bench.greet(FIRST).await;
        bench
    }

    async fn greet(&mut self, nonce: &str) {
        self.say(&hello(nonce, 1)).await;
        let ack = self.line().await;
        assert_eq!((&ack["type"], &ack["nonce"]), (&"ack".into(), &nonce.into()));
        let status = self.line().await;
        assert_eq!((&status["type"], &status["nonce"]), (&"status".into(), &nonce.into()));
    }

    async fn say(&mut self, text: &str) {
        self.control.write_all(text.as_bytes()).await.expect("the agent listens");
    }

    /// The next line, whatever it is.
    async fn bytes(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        loop {
            match self.control.read_u8().await.expect("the agent answers") {
                b'\n' if line.is_empty() => {}
                b'\n' => return line,
                byte => line.push(byte),
            }
        }
    }

    async fn line(&mut self) -> Value {
        serde_json::from_slice(&self.bytes().await).expect("JSON")
    }

    async fn answer(&mut self) -> (u64, u64, Value) {
        let mut line = self.line().await;
        assert_eq!(line["type"], "answer");
        (line["id"].as_u64().expect("a number"), line["status"].as_u64().expect("a status"), line["body"].take())
    }

    /// Lets the agent do what it can.
    async fn rest(&self) {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }

    async fn release(&self, number: u64) {
        self.rest().await;
        let held = self.echo.held.borrow_mut().remove(&number);
        let _ = held.expect("it was asked").send(());
    }

    async fn take_stream(&mut self, nonce: &str) -> DuplexStream {
        let mut stream = self.streams.pop().expect("a stream");
        assert_eq!(read(&mut stream, sync_line(nonce).len()).await, sync_line(nonce));
        stream
    }
}

async fn read(stream: &mut DuplexStream, count: usize) -> String {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.expect("bytes");
    String::from_utf8(bytes).expect("text")
}

fn run_test(test: impl Future<Output = ()>) {
    // The clock moves only while everybody waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("runtime");
    let bounded = async { tokio::time::timeout(Duration::from_millis(NEVER_MS - 1), test).await.expect("nobody waits for nothing") };
    tokio::task::LocalSet::new().block_on(&runtime, bounded);
}

#[test]
fn a_session_begins_behind_stale_bytes_and_a_new_hello_replaces_it_with_its_stream() {
    run_test(async {
        let mut bench = Bench::start(ROOMY);
        bench.say("half a line of a dead host").await;
        bench.greet(FIRST).await;
        bench.say(&ask_for_stream(FIRST, 1, THIRD)).await;
        assert_eq!(bench.answer().await, (1, 200, json!({})));
        let mut first = bench.take_stream(THIRD).await;
        first.write_all(format!("stale volant-stre{}ping", sync_line(THIRD)).as_bytes()).await.expect("written");
        assert_eq!(read(&mut first, 4).await, "ping");
        bench.greet(SECOND).await;
        assert_eq!(first.read(&mut [0; 8]).await.expect("closed"), 0);
        bench.say(&ask(FIRST, 2, "/now")).await;
        bench.say(&ask(SECOND, 3, "/now")).await;
        assert_eq!(bench.answer().await.0, 3);
    });
}

#[test]
fn a_repeated_hello_is_answered_and_changes_nothing() {
    run_test(async {
        let mut bench = Bench::begun(ROOMY).await;
        bench.say(&ask_for_stream(FIRST, 1, THIRD)).await;
        bench.answer().await;
        let mut stream = bench.take_stream(THIRD).await;
        stream.write_all(sync_line(THIRD).as_bytes()).await.expect("written");
        bench.say(&ask(FIRST, 2, "/held/2")).await;
        bench.say(&hello(FIRST, 1)).await;
        assert_eq!(bench.line().await["type"], "ack");
        stream.write_all(b"still here").await.expect("written");
        assert_eq!(read(&mut stream, 10).await, "still here");
        bench.release(2).await;
        assert_eq!(bench.answer().await.0, 2);
        assert_eq!(bench.echo.greeted.get(), 1);
    });
}

#[test]
fn another_protocol_is_refused_in_words_and_the_session_goes_on() {
    run_test(async {
        let mut bench = Bench::begun(ROOMY).await;
        bench.say(&hello(SECOND, 1).replace(r#""protocol":2"#, r#""protocol":1"#).replace("beat_ms", "unknown")).await;
        let answer = bench.line().await;
        assert_eq!((&answer["type"], &answer["code"], &answer["nonce"]), (&"error".into(), &"protocol_unsupported".into(), &SECOND.into()));
        bench.say(&ask(FIRST, 1, "/now")).await;
        assert_eq!(bench.answer().await.0, 1);
        assert_eq!(bench.echo.greeted.get(), 1);
    });
}

#[test]
fn a_first_hello_moves_the_clock_forward_only_a_restore_both_ways_and_a_clock_line_exactly() {
    run_test(async {
        let mut bench = Bench::start(ROOMY);
        bench.echo.clock.set(NOON_MS + 5000);
        bench.greet(FIRST).await;
        assert_eq!(bench.echo.clock.get(), NOON_MS + 5000);
        bench.say(&hello(SECOND, 2)).await;
        assert_eq!((&bench.line().await["type"], &bench.line().await["type"]), (&"ack".into(), &"status".into()));
        assert_eq!(bench.echo.clock.get(), NOON_MS);
        let clock = |nonce: &str| format!("{}\n", json!({ "type": "clock", "nonce": nonce, "wall_time": wall_time::format(7000) }));
        bench.say(&clock(FIRST)).await;
        bench.say(&ask(SECOND, 1, "/now")).await;
        bench.answer().await;
        assert_eq!(bench.echo.clock.get(), NOON_MS);
        bench.say(&clock(SECOND)).await;
        bench.say(&ask(SECOND, 2, "/now")).await;
        bench.answer().await;
        assert_eq!(bench.echo.clock.get(), 7000);
    });
}

#[test]
fn questions_are_answered_as_they_are_ready_and_with_what_they_brought() {
    run_test(async {
        let mut bench = Bench::begun(ROOMY).await;
        bench.say(&ask(FIRST, 7, "/held/1")).await;
        bench.say(&ask(FIRST, 3, "/held/2")).await;
        let body = json!({ "text": "\u{1}\"" });
        bench.say(&format!("{}\n", json!({ "type": "ask", "nonce": FIRST, "id": 5, "method": "PUT", "path": "/now", "body": body }))).await;
        assert_eq!(bench.answer().await, (5, 200, json!({ "method": "PUT", "body": body, "filling": "" })));
        bench.release(2).await;
        assert_eq!(bench.answer().await.0, 3);
        bench.release(1).await;
        assert_eq!(bench.answer().await.0, 7);
    });
}

#[test]
fn one_question_too_many_is_refused_until_another_is_answered() {
    run_test(async {
        let mut bench = Bench::begun(ROOMY).await;
        for id in 1..=33 {
            bench.say(&ask(FIRST, id, &format!("/held/{id}"))).await;
        }
        let (id, status, body) = bench.answer().await;
        assert_eq!((id, status, &body["code"]), (33, 429, &"busy".into()));
        bench.release(9).await;
        assert_eq!(bench.answer().await.0, 9);
        bench.say(&ask(FIRST, 34, "/now")).await;
        assert_eq!(bench.answer().await.1, 200);
    });
}

#[test]
fn the_status_is_told_at_once_and_after_each_change_and_changes_that_nobody_reads_as_one() {
    run_test(async {
        let mut bench = Bench::start(NARROW);
        bench.say(&hello(FIRST, 1)).await;
        assert_eq!(bench.line().await["type"], "ack");
        assert_eq!(bench.line().await["status"]["count"], 0);
        bench.echo.status.send_replace(1);
        assert_eq!(bench.line().await["status"]["count"], 1);
        for count in 2..=1000 {
            bench.echo.status.send_replace(count);
            bench.rest().await;
        }
        let mut told = vec![bench.line().await["status"]["count"].clone()];
        while told.last() != Some(&1000.into()) {
            told.push(bench.line().await["status"]["count"].clone());
        }
        // The one that was half written, and the last.
        assert_eq!(told, [json!(2), json!(1000)]);
        bench.echo.status.send_replace(1001);
        assert_eq!(bench.line().await["status"]["count"], 1001);
    });
}

#[test]
fn beats_come_at_the_interval_that_was_asked_for_and_missed_ones_are_not_made_up() {
    run_test(async {
        let mut bench = Bench::start(NARROW / 2);
        bench.say(&hello_with(FIRST, 1, 200)).await;
        let begun = Instant::now();
        assert_eq!((&bench.line().await["type"], &bench.line().await["type"]), (&"ack".into(), &"status".into()));
        for beat in 1..=3 {
            assert_eq!(bench.line().await, json!({ "type": "beat", "nonce": FIRST }));
            assert_eq!(begun.elapsed().as_millis() / 100, 2 * beat);
        }
        // The next one lies half written for as long as nobody reads; one more was due.
        tokio::time::sleep(Duration::from_millis(2110)).await;
        let mut late = 0;
        while begun.elapsed().as_millis() < 2790 {
            assert_eq!(bench.line().await["type"], "beat");
            late += u32::from(begun.elapsed().as_millis() < 2790);
        }
        assert_eq!((late, begun.elapsed().as_millis() / 100), (2, 28));
    });
}

#[test]
fn a_new_host_gets_through_a_half_written_line_which_is_not_finished() {
    run_test(async {
        let mut bench = Bench::begun(NARROW).await;
        bench.say(&ask(FIRST, 1, "/long/100000")).await;
        bench.say(&ask(FIRST, 2, "/held/2")).await;
        bench.rest().await;
        assert_eq!(bench.echo.open.get(), 1);
        bench.say(&hello(SECOND, 1)).await;
        // Heard before there is room for more of the line: which of the two comes first is nobody's word.
        bench.rest().await;
        let rest = bench.bytes().await;
        assert!(rest.len() <= NARROW && serde_json::from_slice::<Value>(&rest).is_err());
        let ack = bench.line().await;
        assert_eq!((&ack["type"], &ack["nonce"]), (&"ack".into(), &SECOND.into()));
        assert_eq!(bench.line().await["type"], "status");
        // What the dead host had asked is dropped.
        bench.rest().await;
        assert_eq!(bench.echo.open.get(), 0);
        bench.say(&ask(SECOND, 1, "/now")).await;
        assert_eq!(bench.answer().await.0, 1);
    });
}

#[test]
fn a_host_that_does_not_read_is_held_to_its_bounds_and_the_next_one_gets_through() {
    run_test(async {
        let mut bench = Bench::begun(NARROW).await;
        for id in 1..=5000 {
            bench.say(&ask(FIRST, id, "/long/1000")).await;
        }
        bench.rest().await;
        assert!(bench.echo.most_open.get() <= MOST_QUESTIONS);
        let mut statuses = HashMap::new();
        let mut last = 0;
        bench.echo.status.send_replace(1);
        loop {
            let line = bench.line().await;
            match line["type"].as_str() {
                Some("answer") => *statuses.entry(line["status"].as_u64().expect("a status")).or_insert(0) += 1,
                _ => {
                    last += 1;
                    bench.say(&ask(FIRST, 5001, "/now")).await;
                }
            }
            if line["id"] == 5001 {
                break;
            }
        }
        assert!(statuses[&200] <= MOST_QUESTIONS + 2 && statuses[&429] <= MOST_REFUSALS, "{statuses:?}");
        assert_eq!(last, 1);
        for id in 1..=5000 {
            bench.say(&ask(FIRST, id, "/long/1000")).await;
        }
        bench.say(&hello(SECOND, 1)).await;
        bench.bytes().await;
        assert_eq!(bench.line().await["nonce"], SECOND);
    });
}

#[test]
fn a_stream_that_is_asked_for_again_cuts_off_the_one_before() {
    run_test(async {
        let mut bench = Bench::begun(ROOMY).await;
        bench.say(&ask_for_stream(FIRST, 1, SECOND)).await;
        assert_eq!(bench.answer().await.1, 200);
        let mut first = bench.take_stream(SECOND).await;
        first.write_all(sync_line(SECOND).as_bytes()).await.expect("written");
        bench.say(&ask_for_stream(FIRST, 2, THIRD)).await;
        assert_eq!(bench.answer().await, (2, 200, json!({})));
        assert_eq!(first.read(&mut [0; 8]).await.expect("closed"), 0);
        let mut second = bench.take_stream(THIRD).await;
        second.write_all(format!("{}{}pong", sync_line(SECOND), sync_line(THIRD)).as_bytes()).await.expect("written");
        assert_eq!(read(&mut second, 4).await, "pong");
        // Its end ends nothing else.
        drop(second);
        bench.say(&ask(FIRST, 3, "/now")).await;
        assert_eq!(bench.answer().await.0, 3);
    });
}

#[test]
fn a_stream_is_opened_for_a_post_with_a_nonce_and_where_there_is_a_port() {
    run_test(async {
        let mut bench = Bench::begun(ROOMY).await;
        bench.say(&ask_for_stream(FIRST, 1, "short")).await;
        assert_eq!(bench.answer().await.1, 400);
        bench.say(&ask(FIRST, 2, "/v1/stream")).await;
        assert_eq!(bench.answer().await.1, 405);
        bench.echo.streams.borrow_mut().clear();
        bench.say(&ask_for_stream(FIRST, 3, SECOND)).await;
        let (_, status, body) = bench.answer().await;
        assert_eq!((status, &body["code"]), (503, &"stream_port".into()));
        // Of two at once the last one counts.
        bench.say(&(ask_for_stream(FIRST, 4, SECOND) + &ask_for_stream(FIRST, 5, THIRD))).await;
        assert_eq!((bench.answer().await.1, bench.answer().await.1), (503, 503));
    });
}
