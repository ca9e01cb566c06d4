use std::time::{Duration, Instant};

use rand::{SeedableRng, rngs::SmallRng};

use super::{conditions::DirectionConditions, control::Faults, *};
use crate::law::Law;

#[test]
fn json_forms() {
    for (text, fault, for_ms) in [
        (r#"{"kind":"stall"}"#, Fault::Stall, None),
        (r#"{"kind":"refuse","for_ms":5}"#, Fault::Refuse, Some(5)),
        (r#"{"kind":"loss","pct":20}"#, Fault::Loss { pct: 20.0, seed: DEFAULT_SEED }, None),
        (r#"{"kind":"loss","pct":0.5,"seed":7,"for_ms":9}"#, Fault::Loss { pct: 0.5, seed: 7 }, Some(9)),
        (r#"{"kind":"stall-writes"}"#, Fault::StallWrites, None),
        (
            r#"{"kind":"fail-writes","pct":10}"#,
            Fault::FailWrites { pct: 10.0, seed: DEFAULT_SEED, error: WriteError::ReadOnly },
            None,
        ),
        (
            r#"{"kind":"fail-writes","pct":100,"seed":3,"error":"disk-full"}"#,
            Fault::FailWrites { pct: 100.0, seed: 3, error: WriteError::DiskFull },
            None,
        ),
        (r#"{"kind":"blackhole"}"#, Fault::Blackhole { drop_syn: false }, None),
        (r#"{"kind":"blackhole","drop_syn":true,"for_ms":9}"#, Fault::Blackhole { drop_syn: true }, Some(9)),
        (r#"{"kind":"latency","ms":3,"jitter_ms":1,"for_ms":7}"#, Fault::Latency { ms: 3.0, jitter_ms: 1.0 }, Some(7)),
    ] {
        let spec: FaultSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec, FaultSpec { for_ms, ..fault.into() });
        let active = ActiveFault { spec: spec.clone(), remaining_ms: for_ms };
        let back: ActiveFault = serde_json::from_str(&serde_json::to_string(&spec).unwrap())
            .map(|spec| ActiveFault { spec, remaining_ms: for_ms })
            .unwrap();
        assert_eq!(back, active);
    }
    for (text, expected) in [
        (r#"{"kind":"latency"}"#, "ms: missing"),
        (r#"{"kind":"latency","ms":-1}"#, "ms: is -1"),
        (r#"{"kind":"latency","ms":1,"jitter_ms":2}"#, "jitter_ms: is 2"),
        (r#"{"kind":"stall","ms":1}"#, "ms: belongs to latency"),
        (r#"{"kind":"loss"}"#, "pct: missing"),
        (r#"{"kind":"loss","pct":101}"#, "pct: is 101"),
        (r#"{"kind":"loss","pct":1,"ms":1}"#, "ms: belongs to latency"),
        (r#"{"kind":"refuse","seed":1}"#, "seed: belongs to loss"),
        (r#"{"kind":"refuse","drop_syn":true}"#, "drop_syn: belongs to blackhole"),
        (r#"{"kind":"refuse","seed":1}"#, "seed: belongs to loss, fail-writes only"),
        (r#"{"kind":"refuse","direction":"to-client"}"#, "direction: belongs to latency, stall, loss, blackhole only"),
        (r#"{"kind":"stall","direction":"up"}"#, "unknown variant `up`"),
        (r#"{"kind":"blackhole","drop_syn":true,"direction":"to-server"}"#, "drop_syn: needs both directions"),
        (r#"{"kind":"stall","error":"disk-full"}"#, "error: belongs to fail-writes only"),
        (r#"{"kind":"fail-writes"}"#, "pct: missing"),
        (r#"{"kind":"stall","link":"*****"}"#, "link: is longer than"),
        (r#"{"kind":"stall","for_ms":0}"#, "for_ms: is 0"),
        (r#"{"kind":"stall","seconds":1}"#, "unknown field `seconds`"),
        (r#"{"kind":"flood"}"#, "unknown variant `flood`"),
    ] {
        let error = serde_json::from_str::<FaultSpec>(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_json_of_a_scope() {
    let text = r#"{"kind":"blackhole","drop_syn":false,"link":"worker-0>*","direction":"to-server"}"#;
    let spec: FaultSpec = serde_json::from_str(text).unwrap();
    assert_eq!(spec, Fault::Blackhole { drop_syn: false }.on("worker-0>*").toward(Direction::ToServer));
    assert_eq!(serde_json::to_string(&spec).unwrap(), text);
}

#[test]
fn a_star_stands_for_any_text() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "a", true),
        ("*>worker-0/*", "members>worker-0/udp", true),
        ("*>worker-0/*", "members>worker-1/udp", false),
        ("*é*", "née", true),
        ("*b*b", "abab", true),
        ("*b*b", "ab", false),
        ("", "", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

fn link(name: &str, is_mysql: bool) -> ControlledLink {
    ControlledLink { name: name.into(), listen: "127.0.0.1:1".into(), is_mysql }
}

#[test]
fn one_of_a_kind_until_its_time_is_over() {
    let start = Instant::now();
    let (mut faults, link) = (Faults::default(), link("a", true));
    faults.add(Fault::Stall.for_ms(100), start);
    faults.add(Fault::Latency { ms: 5.0, jitter_ms: 0.0 }.into(), start);
    faults.add(Fault::Latency { ms: 9.0, jitter_ms: 0.0 }.into(), start);
    faults.add(Fault::Reset.into(), start);
    assert_eq!(faults.active(start).len(), 2);
    assert_eq!(faults.next_expiry(), Some(start + Duration::from_millis(100)));
    faults.expire(start + Duration::from_millis(99));
    let mut conditions = Conditions::default();
    faults.apply(&link, &mut conditions);
    let seen = |conditions: &Conditions| (conditions.to_server.latency, conditions.to_client.stall);
    assert_eq!((seen(&conditions), conditions.reset_new), ((Some((9.0, 0.0)), true), false));
    faults.expire(start + Duration::from_millis(100));
    faults.apply(&link, &mut conditions);
    assert_eq!(seen(&conditions), (Some((9.0, 0.0)), false));
}

#[test]
fn the_newest_fault_of_a_kind_is_in_force_where_it_was_added() {
    let now = Instant::now();
    let mut faults = Faults::default();
    let conditions = |faults: &Faults, name, is_mysql| {
        let mut conditions = Conditions::default();
        faults.apply(&link(name, is_mysql), &mut conditions);
        conditions
    };
    let latency = |ms| Fault::Latency { ms, jitter_ms: 0.0 };
    faults.add(latency(1.0).into(), now);
    faults.add(latency(2.0).on("a>*").toward(Direction::ToServer), now);
    faults.add(Fault::StallWrites.into(), now);
    assert_eq!(faults.active(now).len(), 3, "other links, other directions: another fault");
    let a = conditions(&faults, "a>b", true);
    assert_eq!((a.to_server.latency, a.to_client.latency), (Some((2.0, 0.0)), Some((1.0, 0.0))));
    let b = conditions(&faults, "b>a", false);
    assert_eq!((b.to_server.latency, b.to_client.latency), (Some((1.0, 0.0)), Some((1.0, 0.0))));
    assert_eq!((a.stall_writes, b.stall_writes), (true, false), "only MySQL has writes");
    // Added again for all links, it is the newest there too.
    faults.add(latency(3.0).into(), now);
    assert_eq!(faults.active(now).len(), 3);
    assert_eq!(conditions(&faults, "a>b", true).to_server.latency, Some((3.0, 0.0)));
}

#[test]
fn latency_jitters_around_its_mean() {
    let conditions = DirectionConditions { latency: Some((20.0, 5.0)), ..DirectionConditions::default() };
    let mut rng = SmallRng::seed_from_u64(3);
    let ms: Vec<f64> = (0..20_000).map(|_| conditions.latency(&mut rng).as_secs_f64() * 1000.0).collect();
    assert!(ms.iter().all(|ms| (15.0..=25.0).contains(ms)));
    let mean = ms.iter().sum::<f64>() / ms.len() as f64;
    assert!((mean - 20.0).abs() < 0.1, "{mean}");
}

#[tokio::test]
async fn control_lifts_faults_on_time_and_counts_resets_where_they_happen() {
    let control = Control::new(Law::None, [link("a", false), link("b", false)]);
    let [mut a, b] = control.subscribe().collect::<Vec<_>>().try_into().unwrap();
    control.add(FaultSpec { for_ms: Some(1), ..Fault::Reset.on("a") }).unwrap();
    let accepted = b.borrow().at_accept();
    assert!(a.borrow_and_update().reset_new && a.borrow().resets(accepted));
    assert!(!b.has_changed().unwrap() && !b.borrow().resets(accepted));
    tokio::select! {
        () = control.expire() => unreachable!("runs for ever"),
        lifted = a.wait_for(|conditions| !conditions.reset_new) => assert!(lifted.unwrap().resets(accepted)),
    }
    assert!(control.active().is_empty());
    for (fault, names) in [(Fault::Stall.on("c"), "these can: [a, b]"), (Fault::StallWrites.into(), "these can: []")] {
        let error = control.add(fault).unwrap_err().to_string();
        assert!(error.contains(names), "{error}");
    }
}

#[test]
fn faults_are_lifted_by_kind_and_by_link() {
    let control = Control::new(Law::None, [link("a", false), link("b", false)]);
    for fault in [Fault::Stall.into(), Fault::Stall.on("a"), Fault::Refuse.on("a"), Fault::Refuse.on("b")] {
        control.add(fault).unwrap();
    }
    let left = || control.active().into_iter().map(|active| active.spec).collect::<Vec<_>>();
    control.lift(Some(FaultKind::Refuse), Some("a"));
    assert_eq!(left(), [Fault::Stall.into(), Fault::Stall.on("a"), Fault::Refuse.on("b")]);
    control.lift(None, Some("a"));
    assert_eq!(left(), [Fault::Stall.into(), Fault::Refuse.on("b")]);
    control.lift(Some(FaultKind::Stall), None);
    assert_eq!(left(), [Fault::Refuse.on("b")]);
    control.lift(None, None);
    assert!(left().is_empty());
}

#[test]
fn a_black_hole_of_one_direction_loses_only_what_goes_there_and_for_ever() {
    let control = Control::new(Law::None, [link("a", false)]);
    let conditions = control.subscribe().next().unwrap();
    let accepted = conditions.borrow().at_accept();
    control.add(FaultSpec::from(Fault::Blackhole { drop_syn: false }).toward(Direction::ToClient)).unwrap();
    let loses = |then| Direction::BOTH.map(|direction| conditions.borrow().loses(direction, then));
    assert_eq!((loses(accepted), conditions.borrow().is_in_blackhole(accepted)), ([false, true], false));
    control.lift(None, None);
    assert_eq!(loses(accepted), [false, true], "bytes are missing: the stream cannot go on");
    let later = conditions.borrow().at_accept();
    assert_eq!(loses(later), [false, false]);
    control.add(Fault::Blackhole { drop_syn: false }.into()).unwrap();
    assert!(conditions.borrow().is_in_blackhole(later));
}
