use rand::{SeedableRng, rngs::SmallRng};

use super::*;

#[test]
fn json_forms() {
    for (text, fault, for_ms) in [
        (r#"{"kind":"stall"}"#, Fault::Stall, None),
        (r#"{"kind":"refuse","for_ms":5}"#, Fault::Refuse, Some(5)),
        (r#"{"kind":"loss","pct":20}"#, Fault::Loss { pct: 20.0, seed: DEFAULT_SEED }, None),
        (r#"{"kind":"loss","pct":0.5,"seed":7,"for_ms":9}"#, Fault::Loss { pct: 0.5, seed: 7 }, Some(9)),
        (r#"{"kind":"blackhole"}"#, Fault::Blackhole { drop_syn: false }, None),
        (r#"{"kind":"blackhole","drop_syn":true,"for_ms":9}"#, Fault::Blackhole { drop_syn: true }, Some(9)),
        (r#"{"kind":"latency","ms":3,"jitter_ms":1,"for_ms":7}"#, Fault::Latency { ms: 3.0, jitter_ms: 1.0 }, Some(7)),
    ] {
        let spec: FaultSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec, FaultSpec { fault, for_ms });
        let active = ActiveFault { spec, remaining_ms: for_ms };
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
        (r#"{"kind":"stall","for_ms":0}"#, "for_ms: is 0"),
        (r#"{"kind":"stall","seconds":1}"#, "unknown field `seconds`"),
        (r#"{"kind":"flood"}"#, "unknown variant `flood`"),
    ] {
        let error = serde_json::from_str::<FaultSpec>(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn one_of_a_kind_until_its_time_is_over() {
    let start = Instant::now();
    let mut faults = Faults::default();
    faults.add(FaultSpec { fault: Fault::Stall, for_ms: Some(100) }, start);
    faults.add(Fault::Latency { ms: 5.0, jitter_ms: 0.0 }.into(), start);
    faults.add(Fault::Latency { ms: 9.0, jitter_ms: 0.0 }.into(), start);
    faults.add(Fault::Reset.into(), start);
    assert_eq!(faults.active(start).len(), 2);
    assert_eq!(faults.next_expiry(), Some(start + Duration::from_millis(100)));
    faults.expire(start + Duration::from_millis(99));
    let mut conditions = Conditions::default();
    faults.apply(&mut conditions);
    assert_eq!((conditions.latency, conditions.stall, conditions.reset_new), (Some((9.0, 0.0)), true, false));
    faults.expire(start + Duration::from_millis(100));
    faults.apply(&mut conditions);
    assert_eq!((conditions.latency, conditions.stall), (Some((9.0, 0.0)), false));
}

#[test]
fn latency_jitters_around_its_mean() {
    let conditions = Conditions { latency: Some((20.0, 5.0)), ..Conditions::default() };
    let mut rng = SmallRng::seed_from_u64(3);
    let ms: Vec<f64> = (0..20_000).map(|_| conditions.latency(&mut rng).as_secs_f64() * 1000.0).collect();
    assert!(ms.iter().all(|ms| (15.0..=25.0).contains(ms)));
    let mean = ms.iter().sum::<f64>() / ms.len() as f64;
    assert!((mean - 20.0).abs() < 0.1, "{mean}");
}

#[tokio::test]
async fn control_lifts_by_itself_and_counts_resets() {
    let control = Control::new(Law::None);
    let mut seen = control.subscribe();
    control.add(FaultSpec { fault: Fault::Reset, for_ms: Some(1) });
    assert!(seen.borrow_and_update().reset_new && seen.borrow().events.resets == 1);
    tokio::select! {
        () = control.expire() => unreachable!("runs for ever"),
        lifted = seen.wait_for(|conditions| !conditions.reset_new) => assert_eq!(lifted.unwrap().events.resets, 1),
    }
    assert!(control.active().is_empty());
}
