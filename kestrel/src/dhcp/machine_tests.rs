//! The state machine against a simulated clock: a lease's whole life in microseconds.

use super::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn reply(kind: ReplyKind, server: Ipv4Addr, lease_seconds: u32) -> Reply {
    Reply {
        kind,
        address: ADDRESS,
        server: Some(server),
        mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        router: Some(SERVER),
        nameservers: vec![SERVER],
        domain: None,
        lease_seconds: Some(lease_seconds),
        renew_seconds: None,
        rebind_seconds: None,
    }
}

/// Lets time pass until `end`, calling the machine exactly when it wants to be; what it did, and when.
fn run(machine: &mut Machine, end: Duration) -> Vec<(Duration, Action)> {
    let mut done = Vec::new();
    while let Some(due) = machine.due().filter(|&due| due <= end) {
        let actions = machine.on_time(due);
        assert!(machine.due().is_none_or(|next| next > due), "it would be called without end");
        done.extend(actions.into_iter().map(|action| (due, action)));
    }
    done
}

fn question(action: &Action) -> Option<&Question> {
    match action {
        Action::Broadcast(message) | Action::Unicast(_, message) => Some(&message.question),
        _ => None,
    }
}

/// A machine that has had a lease of `lease_seconds` since the moment 0.
fn bound(lease_seconds: u32) -> Machine {
    let mut machine = Machine::new(1, Duration::ZERO);
    machine.on_time(Duration::ZERO);
    machine.on_reply(Duration::ZERO, &reply(ReplyKind::Offer, SERVER, lease_seconds));
    let actions = machine.on_reply(Duration::ZERO, &reply(ReplyKind::Ack, SERVER, lease_seconds));
    assert!(matches!(actions[..], [Action::Bind(_)]));
    assert_eq!(machine.phase(), Phase::Bound);
    machine
}

#[test]
fn discover_offer_request_ack_is_a_lease_within_one_transaction() {
    let mut machine = Machine::new(1, Duration::ZERO);
    let [Action::Broadcast(discover)] = &machine.on_time(Duration::ZERO)[..] else { panic!("no discover") };
    assert_eq!(discover.question, Question::Discover);
    let [Action::Broadcast(request)] = &machine.on_reply(seconds(0), &reply(ReplyKind::Offer, SERVER, 80))[..] else {
        panic!("no request")
    };
    assert_eq!(request.question, Question::Take { address: ADDRESS, server: SERVER });
    assert_eq!((request.xid, machine.xid()), (discover.xid, discover.xid));
    let actions = machine.on_reply(seconds(0), &reply(ReplyKind::Ack, SERVER, 80));
    assert_eq!(actions, [Action::Bind(Lease::of(&reply(ReplyKind::Ack, SERVER, 80)).expect("usable"))]);
    assert_eq!(machine.due(), Some(seconds(40)));
    assert!(!machine.is_listening());
}

#[test]
fn without_a_server_the_question_is_repeated_ever_more_rarely_and_for_ever() {
    for seed in 0..50 {
        let mut machine = Machine::new(seed, Duration::ZERO);
        let moments: Vec<Duration> = run(&mut machine, seconds(600)).into_iter().map(|(moment, _)| moment).collect();
        let pauses: Vec<f64> = moments.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        for (index, pause) in pauses.iter().enumerate() {
            let middle = f64::from(1u32 << index.min(4));
            assert!((middle * 0.79..=middle * 1.21).contains(pause), "{pauses:?}");
        }
        assert!(moments.len() > 30);
        assert_eq!(machine.phase(), Phase::WaitingForLease);
        assert_eq!(machine.note(), Some("no DHCP server has answered"));
    }
}

#[test]
fn two_clients_do_not_repeat_in_step() {
    let first = |seed| run(&mut Machine::new(seed, Duration::ZERO), seconds(30)).into_iter().map(|(moment, _)| moment).collect::<Vec<_>>();
    assert_ne!(first(1), first(2));
}

#[test]
fn the_first_acceptable_of_several_offers_is_taken() {
    let mut machine = Machine::new(1, Duration::ZERO);
    machine.on_time(Duration::ZERO);
    let useless = Reply { mask: None, ..reply(ReplyKind::Offer, OTHER, 80) };
    assert_eq!(machine.on_reply(Duration::ZERO, &useless), []);
    assert_eq!(machine.note(), Some("an offer from 10.0.0.2 was ignored: it has no subnet mask"));
    let taken = machine.on_reply(Duration::ZERO, &reply(ReplyKind::Offer, SERVER, 80));
    assert_eq!(question(&taken[0]), Some(&Question::Take { address: ADDRESS, server: SERVER }));
    assert_eq!(machine.on_reply(Duration::ZERO, &reply(ReplyKind::Offer, OTHER, 80)), []);
    // What the other server says to a request that was not for it does not matter.
    for kind in [ReplyKind::Nak, ReplyKind::Ack] {
        assert_eq!(machine.on_reply(Duration::ZERO, &reply(kind, OTHER, 80)), []);
    }
    assert!(matches!(machine.on_reply(Duration::ZERO, &reply(ReplyKind::Ack, SERVER, 80))[..], [Action::Bind(_)]));
}

#[test]
fn an_offer_that_is_never_confirmed_is_given_up_for_a_new_attempt() {
    let mut machine = Machine::new(1, Duration::ZERO);
    machine.on_time(Duration::ZERO);
    let before = machine.xid();
    machine.on_reply(Duration::ZERO, &reply(ReplyKind::Offer, SERVER, 80));
    let done = run(&mut machine, seconds(20));
    let requests = done.iter().filter(|(_, action)| matches!(question(action), Some(Question::Take { .. }))).count();
    assert_eq!(requests as u32, MOST_REQUESTS - 1);
    assert!(done.iter().any(|(_, action)| question(action) == Some(&Question::Discover)));
    assert_ne!(machine.xid(), before);
    assert!(machine.note().expect("a note").contains("did not confirm"));
}

#[test]
fn a_lease_is_renewed_at_t1_by_asking_its_server_directly() {
    let mut machine = bound(80);
    assert_eq!(run(&mut machine, seconds(39)), []);
    let done = run(&mut machine, seconds(40));
    let [(at, Action::Unicast(SERVER, message))] = &done[..] else { panic!("{done:?}") };
    assert_eq!((*at, &message.question), (seconds(40), &Question::Extend { address: ADDRESS }));
    assert_eq!(machine.phase(), Phase::Renewing);
    assert!(machine.lease().is_some());
    // An answer of another server is not one.
    assert_eq!(machine.on_reply(seconds(41), &reply(ReplyKind::Nak, OTHER, 80)), []);
    assert!(matches!(machine.on_reply(seconds(41), &reply(ReplyKind::Ack, SERVER, 80))[..], [Action::Bind(_)]));
    assert_eq!(machine.due(), Some(seconds(80)), "T1 counts from the request");
}

#[test]
fn a_day_of_leases_of_ten_seconds_never_loses_the_address() {
    let mut machine = bound(10);
    let mut renewals = 0;
    while let Some(due) = machine.due().filter(|&due| due < seconds(86_400)) {
        for action in machine.on_time(due) {
            assert!(matches!(action, Action::Unicast(SERVER, _)), "{action:?}");
            machine.on_reply(due, &reply(ReplyKind::Ack, SERVER, 10));
            renewals += 1;
        }
    }
    assert!(renewals > 17_000, "{renewals}");
}

#[test]
fn a_silent_server_is_asked_with_shrinking_pauses_then_all_servers_then_the_address_is_given_up() {
    for lease_seconds in [10u32, 120, 86_400] {
        let mut machine = bound(lease_seconds);
        let end = seconds(lease_seconds.into());
        let done = run(&mut machine, end);
        let (t1, t2) = (end / 2, end * 7 / 8);
        let direct: Vec<_> = done.iter().filter(|(_, action)| matches!(action, Action::Unicast(..))).map(|(at, _)| *at).collect();
        assert_eq!(direct.first(), Some(&t1));
        assert!(direct.len() >= 2 && direct.iter().all(|&at| at < t2), "{direct:?}");
        let rebinding: Vec<_> = done
            .iter()
            .filter(|(_, action)| matches!(action, Action::Broadcast(message) if matches!(message.question, Question::Extend { .. })))
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(rebinding.first(), Some(&t2));
        assert!(rebinding.iter().all(|&at| at < end) && rebinding.len() < 20);
        let lost = done.iter().position(|(_, action)| *action == Action::Unbind).expect("lost");
        assert_eq!(done[lost].0, end);
        assert_eq!(question(&done[lost + 1].1), Some(&Question::Discover));
        assert_eq!(machine.phase(), Phase::WaitingForLease);
        assert!(machine.lease().is_none());
        assert!(machine.note().expect("a note").contains("10.0.0.5"));
    }
}

#[test]
fn another_server_may_take_a_lease_over_when_it_is_rebound() {
    let mut machine = bound(80);
    run(&mut machine, seconds(70));
    assert_eq!(machine.phase(), Phase::Rebinding);
    assert!(matches!(machine.on_reply(seconds(71), &reply(ReplyKind::Ack, OTHER, 80))[..], [Action::Bind(_)]));
    assert_eq!(machine.lease().map(|(lease, _)| lease.server), Some(OTHER));
    assert_eq!(machine.phase(), Phase::Bound);
}

#[test]
fn an_acknowledgement_that_comes_after_the_end_does_not_bring_the_lease_back() {
    let mut machine = bound(80);
    run(&mut machine, seconds(79));
    assert_eq!(machine.on_reply(seconds(80), &reply(ReplyKind::Ack, SERVER, 80)), []);
    assert_eq!(machine.on_time(seconds(80))[0], Action::Unbind);
}

#[test]
fn a_refused_renewal_takes_the_address_away_at_once_and_asks_anew() {
    for moment in [40, 70] {
        let mut machine = bound(80);
        run(&mut machine, seconds(moment));
        let actions = machine.on_reply(seconds(moment), &reply(ReplyKind::Nak, SERVER, 0));
        assert_eq!(actions[0], Action::Unbind);
        assert_eq!(question(&actions[1]), Some(&Question::Discover));
        assert_eq!(machine.phase(), Phase::WaitingForLease);
    }
}

#[test]
fn a_server_that_refuses_what_it_offers_is_not_asked_in_a_tight_loop() {
    let mut machine = Machine::new(1, Duration::ZERO);
    let mut discovers = 0;
    while let Some(due) = machine.due().filter(|&due| due < seconds(60)) {
        let mut actions = machine.on_time(due);
        while let Some(action) = actions.pop() {
            match question(&action) {
                Some(Question::Discover) => {
                    discovers += 1;
                    actions.extend(machine.on_reply(due, &reply(ReplyKind::Offer, SERVER, 80)));
                }
                Some(Question::Take { .. }) => actions.extend(machine.on_reply(due, &reply(ReplyKind::Nak, SERVER, 0))),
                _ => {}
            }
        }
    }
    assert!((3..10).contains(&discovers), "{discovers}");
}

#[test]
fn a_lease_without_an_end_is_kept_in_silence() {
    let mut machine = bound(u32::MAX);
    assert_eq!(machine.due(), None);
    assert_eq!(machine.on_time(seconds(u64::from(u32::MAX) * 2)), []);
    assert_eq!(machine.phase(), Phase::Bound);
}

#[test]
fn random_replies_at_random_moments_never_leave_an_address_beyond_its_lease() {
    for seed in 0..300 {
        let mut machine = Machine::new(seed, Duration::ZERO);
        let mut chance = Machine::new(seed + 1000, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut has_address = false;
        for _ in 0..300 {
            let due = machine.due().unwrap_or(now + seconds(50));
            let early = now + Duration::from_millis(chance.draw() % 5000);
            let actions = if early < due {
                now = early;
                let kind = [ReplyKind::Offer, ReplyKind::Ack, ReplyKind::Nak][(chance.draw() % 3) as usize];
                let server = if chance.draw() % 4 == 0 { OTHER } else { SERVER };
                machine.on_reply(now, &reply(kind, server, 1 + (chance.draw() % 40) as u32))
            } else {
                now = due;
                machine.on_time(now)
            };
            for action in &actions {
                match action {
                    Action::Bind(_) => has_address = true,
                    Action::Unbind => {
                        assert!(has_address);
                        has_address = false;
                    }
                    _ => {}
                }
            }
            assert_eq!(has_address, machine.lease().is_some());
            if let Some((lease, since)) = machine.lease() {
                assert!(lease.times.is_none_or(|times| now < since + times.expire));
            }
        }
    }
}
