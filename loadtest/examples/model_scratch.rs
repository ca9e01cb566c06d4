fn main() {
    let mut s = loadtest::scenario::Scenario::load("article").unwrap();
    for (t, c, m) in [(60_000, 3000, 45), (3000, 2900, 60)] {
        s.timeout_ms = t;
        s.store.checkout_timeout_ms = c;
        s.measure_s = m;
        for users in [1000, 2000, 3000, 4000, 5000] {
            let t0 = std::time::Instant::now();
            println!("{users} {:?} {:?}", loadtest::model::step(&s, users, 1.0, 1).unwrap(), t0.elapsed());
        }
    }
}
