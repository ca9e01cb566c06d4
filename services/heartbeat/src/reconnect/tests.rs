use proptest::prelude::*;
use rand::{SeedableRng, rngs::SmallRng};

use super::*;

fn machine(seed: u64) -> Reconnect<SmallRng> {
    Reconnect::new(Policy::default(), SmallRng::seed_from_u64(seed))
}

fn connected(seed: u64) -> Reconnect<SmallRng> {
    let mut machine = machine(seed);
    machine.connected();
    machine
}

#[test]
fn the_articles_table_then_silence_then_one_alarm() {
    let mut machine = connected(1);
    assert_eq!((machine.failed(0), machine.failed(0)), (Action::Nothing, Action::Nothing));
    machine.succeeded();
    assert_eq!((machine.failed(0), machine.failed(0)), (Action::Nothing, Action::Nothing));
    let mut now = 5 * SECOND;
    assert_eq!(machine.failed(now), Action::Disconnect);
    for (attempt, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16)] {
        let State::Waiting { attempt: waiting, until } = machine.state() else { panic!("{:?}", machine.state()) };
        assert_eq!(waiting, attempt);
        let delay = until - now;
        assert!((seconds * SECOND..=seconds * SECOND * 11 / 10).contains(&delay), "{attempt}: {delay}");
        assert_eq!(machine.poll(until - 1), Action::Nothing);
        now = until;
        assert_eq!((machine.poll(now), machine.state()), (Action::Connect, State::Trying { attempt }));
        assert_eq!(machine.failed(now), Action::Nothing);
    }
    assert_eq!(machine.state(), State::Silent { until: now + 60 * SECOND });
    assert_eq!(machine.poll(now + 60 * SECOND - 1), Action::Nothing);
    assert_eq!((machine.poll(now + 60 * SECOND), machine.state()), (Action::Alarm, State::Stopped));
    assert_eq!((machine.poll(Nanos::MAX), machine.deadline()), (Action::Nothing, None));
}

#[test]
fn contact_starts_again_from_waiting_silence_and_the_stop() {
    for rounds in [1_u32, 5, 6, 7] {
        let mut machine = connected(2);
        let mut now = 0;
        assert_eq!(machine.lost(now), Action::Disconnect);
        for _ in 1..rounds {
            now = machine.deadline().unwrap();
            machine.poll(now);
            machine.failed(now);
        }
        assert_eq!((machine.resume(), machine.state()), (Action::Connect, State::Trying { attempt: 1 }), "{rounds}");
        // A connected sender is not disturbed.
        assert_eq!(machine.resume(), Action::Nothing);
        machine.connected();
        assert_eq!((machine.resume(), machine.state()), (Action::Nothing, State::Connected { failures: 0 }));
    }
}

#[test]
fn the_first_connection_gets_its_tries_too() {
    let mut machine = machine(3);
    assert_eq!((machine.failed(0), machine.state().label()), (Action::Nothing, "waiting"));
    assert!(matches!(machine.state(), State::Waiting { attempt: 1, .. }));
}

#[test]
fn delays_double_up_to_the_cap_for_all_numbers() {
    let policy = Policy::default();
    let seconds: Vec<_> = (1..=8).map(|attempt| policy.delay(attempt) / SECOND).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!((policy.delay(64), policy.delay(65), policy.delay(u32::MAX)), (60 * SECOND, 60 * SECOND, 60 * SECOND));
    let absurd = Policy { base: u64::MAX, cap: u64::MAX, jitter: 1.0, ..policy };
    assert_eq!(absurd.jittered(9, &mut SmallRng::seed_from_u64(1)), u64::MAX);
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Connected,
    Succeeded,
    Failed,
    Lost,
    Resume,
    Pass(Nanos),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        1 => Just(Event::Connected),
        1 => Just(Event::Succeeded),
        4 => Just(Event::Failed),
        1 => Just(Event::Lost),
        1 => Just(Event::Resume),
        4 => (0..70 * SECOND).prop_map(Event::Pass),
    ];
    prop::collection::vec(event, 0..200)
}

proptest! {
    /// In any history: attempts stay within their number and never come before their delay, alarms follow silence, and a seed is
    /// deterministic.
    #[test]
    fn any_story(seed: u64, events in events()) {
        let (mut machine, mut registry) = (machine(seed), machine(seed));
        let mut now = 0;
        for event in events {
            let before = machine.state();
            if let Event::Pass(time) = event {
                now += time;
            }
            let play = |machine: &mut Reconnect<SmallRng>| match event {
                Event::Connected => { machine.connected(); Action::Nothing }
                Event::Succeeded => { machine.succeeded(); Action::Nothing }
                Event::Failed => machine.failed(now),
                Event::Lost => machine.lost(now),
                Event::Resume => machine.resume(),
                Event::Pass(_) => machine.poll(now),
            };
            let action = play(&mut machine);
            prop_assert_eq!(play(&mut registry), action);
            prop_assert_eq!(machine.state(), registry.state());
            let after = machine.state();
            match action {
                Action::Connect => {
                    let trying = matches!(after, State::Trying { attempt: 1..=5 });
                    prop_assert!(trying);
                },
                Action::Disconnect => {
                    let (lost, waiting) =
                        (matches!(before, State::Connected { .. }), matches!(after, State::Waiting { attempt: 1, .. }));
                    prop_assert!(lost && waiting);
                }
                Action::Alarm => {
                    let over = matches!(before, State::Silent { until } if now >= until);
                    prop_assert!(over);
                },
                Action::Nothing => {}
            }
            if let State::Waiting { attempt, until } = after && after != before {
                let delay = Policy::default().delay(attempt);
                prop_assert!((1..=5).contains(&attempt));
                prop_assert!(until >= now + delay && until <= now + delay + delay / 10);
            }
            if let State::Connected { failures } = after {
                prop_assert!(failures < 3);
            }
            // A state without a deadline is active, or has raised the alarm.
            prop_assert_eq!(machine.deadline().is_some(), matches!(after, State::Waiting { .. } | State::Silent { .. }));
        }
    }
}
