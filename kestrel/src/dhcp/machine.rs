//! The client's state machine (RFC 2131, 4.4, figure 5), without clock, socket or chance: whoever drives it says what time it is
//! and hands it replies, and does what it answers.
//!
//! Two departures from the RFC, both for machines that start in seconds: no random wait before the first message, and the first
//! repetition after 1 s instead of 4 (the RFC's figure is for a shared wire of 10 Mbit/s), growing to 16 s instead of 64.

use super::lease::{Lease, Times};
use super::message::{Outgoing, Question, Reply, ReplyKind};
use std::net::Ipv4Addr;
use std::time::Duration;

const FIRST_REPEAT: Duration = Duration::from_secs(1);
const LAST_REPEAT: Duration = Duration::from_secs(16);
/// An offer that is not confirmed after so many requests is given up.
const MOST_REQUESTS: u32 = 4;
/// While a lease is renewed, a request is repeated after half of the time that is left, but no sooner than this (RFC 2131, 4.4.5)
/// or, where the whole time is short, than an eighth of it.
const SHORTEST_RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send to every server of the link.
    Broadcast(Outgoing),
    /// Send to one server, from the leased address.
    Unicast(Ipv4Addr, Outgoing),
    /// The interface is to have this, from now on or still.
    Bind(Lease),
    /// The interface is to lose its address.
    Unbind,
}

/// How far the client is, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    WaitingForLease,
    Bound,
    Renewing,
    Rebinding,
}

#[derive(Debug, Clone)]
struct Held {
    lease: Lease,
    /// When the request that it answers was sent: its times count from then.
    since: Duration,
}

#[derive(Debug, Clone)]
enum State {
    /// Until the first message of a new attempt is due.
    Init,
    Selecting,
    Requesting {
        offer: Lease,
        requests: u32,
    },
    Bound(Held),
    Renewing(Held),
    Rebinding(Held),
}

/// See the module. Times are since a moment of the driver's choice.
#[derive(Debug)]
pub struct Machine {
    state: State,
    /// When [`Machine::on_time`] is due; `None` while a lease without an end is held.
    due: Option<Duration>,
    pause: Duration,
    began: Duration,
    sent: Duration,
    refusals: u32,
    xid: u32,
    chance: u64,
    note: Option<String>,
}

impl Machine {
    /// A client without a lease, whose first message is due at once. `seed` should differ between clients and starts.
    pub fn new(seed: u64, now: Duration) -> Self {
        Self {
            state: State::Init,
            due: Some(now),
            pause: FIRST_REPEAT,
            began: now,
            sent: now,
            refusals: 0,
            xid: 0,
            chance: seed,
            note: None,
        }
    }

    /// When to call [`Machine::on_time`].
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// The transaction that replies must carry.
    pub fn xid(&self) -> u32 {
        self.xid
    }

    /// Whether a reply may be on its way.
    pub fn is_listening(&self) -> bool {
        !matches!(self.state, State::Init | State::Bound(_))
    }

    /// Whether the server that granted the lease is being asked directly.
    pub fn is_renewing(&self) -> bool {
        matches!(self.state, State::Renewing(_))
    }

    /// How far the client is.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Init | State::Selecting | State::Requesting { .. } => Phase::WaitingForLease,
            State::Bound(_) => Phase::Bound,
            State::Renewing(_) => Phase::Renewing,
            State::Rebinding(_) => Phase::Rebinding,
        }
    }

    /// The lease that is held, and since when.
    pub fn lease(&self) -> Option<(&Lease, Duration)> {
        match &self.state {
            State::Bound(held) | State::Renewing(held) | State::Rebinding(held) => Some((&held.lease, held.since)),
            _ => None,
        }
    }

    /// What went wrong last, in words, while there is no lease.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// A moment that [`Machine::due`] named has come. Calling it earlier does nothing.
    pub fn on_time(&mut self, now: Duration) -> Vec<Action> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        match self.state.clone() {
            State::Init => {
                self.begin(now);
                self.state = State::Selecting;
                vec![self.broadcast(Question::Discover, now)]
            }
            State::Selecting => {
                self.note.get_or_insert_with(|| "no DHCP server has answered".into());
                vec![self.broadcast(Question::Discover, now)]
            }
            State::Requesting { offer, requests } if requests < MOST_REQUESTS => {
                self.state = State::Requesting { offer: offer.clone(), requests: requests + 1 };
                vec![self.broadcast(Question::Take { address: offer.address, server: offer.server }, now)]
            }
            State::Requesting { offer, .. } => {
                self.note = Some(format!("the server {} offered {} and did not confirm it", offer.server, offer.address));
                self.restart(now, Duration::ZERO);
                self.on_time(now)
            }
            State::Bound(held) | State::Renewing(held) | State::Rebinding(held) => self.extend(held, now),
        }
    }

    /// A reply with the present [`Machine::xid`] has come.
    pub fn on_reply(&mut self, now: Duration, reply: &Reply) -> Vec<Action> {
        match (self.state.clone(), reply.kind) {
            (State::Selecting, ReplyKind::Offer) => match Lease::of(reply) {
                Ok(offer) => {
                    self.pause = FIRST_REPEAT;
                    let question = Question::Take { address: offer.address, server: offer.server };
                    self.state = State::Requesting { offer, requests: 1 };
                    vec![self.broadcast(question, now)]
                }
                Err(why) => {
                    self.ignore("an offer", reply, why);
                    Vec::new()
                }
            },
            // Other servers' answers to a request that took one server's offer mean nothing.
            (State::Requesting { offer, .. }, kind) if kind != ReplyKind::Offer && reply.server == Some(offer.server) => {
                if kind == ReplyKind::Nak { self.refused(now, reply, false) } else { self.bind(reply, now) }
            }
            (State::Renewing(held), kind) if kind != ReplyKind::Offer && reply.server == Some(held.lease.server) => {
                self.on_extension(now, reply, &held)
            }
            (State::Rebinding(held), ReplyKind::Ack | ReplyKind::Nak) => self.on_extension(now, reply, &held),
            _ => Vec::new(),
        }
    }

    fn on_extension(&mut self, now: Duration, reply: &Reply, held: &Held) -> Vec<Action> {
        // Too late: on_time, which is due, takes the address away.
        if held.lease.times.is_some_and(|times| now >= held.since + times.expire) {
            return Vec::new();
        }
        if reply.kind == ReplyKind::Nak { self.refused(now, reply, true) } else { self.bind(reply, now) }
    }

    fn bind(&mut self, reply: &Reply, now: Duration) -> Vec<Action> {
        match Lease::of(reply) {
            Ok(Lease { times: Some(times), .. }) if now >= self.sent + times.expire => {
                self.ignore("an acknowledgement", reply, "it came when its lease was over");
                Vec::new()
            }
            Ok(lease) => {
                self.due = lease.times.map(|times| self.sent + times.renew).map(|due| due.max(now));
                self.refusals = 0;
                self.note = None;
                self.state = State::Bound(Held { lease: lease.clone(), since: self.sent });
                vec![Action::Bind(lease)]
            }
            Err(why) => {
                self.ignore("an acknowledgement", reply, why);
                Vec::new()
            }
        }
    }

    /// The first refusal begins anew at once; a server that refuses what it has just offered is asked ever more rarely.
    fn refused(&mut self, now: Duration, reply: &Reply, had_address: bool) -> Vec<Action> {
        let server = reply.server.map_or_else(String::new, |ip| format!(" {ip}"));
        self.note = Some(format!("the server{server} refused the address"));
        let wait = if self.refusals == 0 { Duration::ZERO } else { FIRST_REPEAT * (1 << (self.refusals - 1).min(4)) };
        self.refusals += 1;
        self.restart(now, wait);
        let mut actions = if had_address { vec![Action::Unbind] } else { Vec::new() };
        actions.extend(self.on_time(now));
        actions
    }

    fn ignore(&mut self, what: &str, reply: &Reply, why: &str) {
        let from = reply.server.map_or_else(String::new, |ip| format!(" from {ip}"));
        self.note = Some(format!("{what}{from} was ignored: {why}"));
    }

    /// Renews, rebinds or gives up a lease, as its times say.
    fn extend(&mut self, held: Held, now: Duration) -> Vec<Action> {
        let Some(Times { renew, rebind, expire }) = held.lease.times else { return Vec::new() };
        let age = now.saturating_sub(held.since);
        if age >= expire {
            self.note = Some(format!("the lease of {} ended, and no server renewed it", held.lease.address));
            self.restart(now, Duration::ZERO);
            return [vec![Action::Unbind], self.on_time(now)].concat();
        }
        let direct = age < rebind;
        if matches!(self.state, State::Bound(_)) {
            self.begin(now);
        }
        let (start, end) = if direct { (renew, rebind) } else { (rebind, expire) };
        let floor = SHORTEST_RENEWAL_PAUSE.min((end - start) / 8);
        self.sent = now;
        self.due = Some((now + ((end - age) / 2).max(floor)).min(held.since + end));
        let message = self.message(Question::Extend { address: held.lease.address }, now);
        if direct {
            let server = held.lease.server;
            self.state = State::Renewing(held);
            return vec![Action::Unicast(server, message)];
        }
        self.state = State::Rebinding(held);
        vec![Action::Broadcast(message)]
    }

    /// A new transaction.
    fn begin(&mut self, now: Duration) {
        self.xid = self.draw() as u32;
        self.began = now;
        self.pause = FIRST_REPEAT;
    }

    fn restart(&mut self, now: Duration, wait: Duration) {
        self.state = State::Init;
        self.due = Some(now + wait);
    }

    fn message(&self, question: Question, now: Duration) -> Outgoing {
        let seconds = now.saturating_sub(self.began).as_secs().min(u16::MAX.into()) as u16;
        Outgoing { question, xid: self.xid, seconds }
    }

    /// A message that is repeated after a pause that doubles, give or take a fifth.
    fn broadcast(&mut self, question: Question, now: Duration) -> Action {
        let fifth = self.pause / 5;
        let jitter = fifth * 2 * (self.draw() % 1001) as u32 / 1000;
        self.sent = now;
        self.due = Some(now + self.pause - fifth + jitter);
        self.pause = (self.pause * 2).min(LAST_REPEAT);
        Action::Broadcast(self.message(question, now))
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
