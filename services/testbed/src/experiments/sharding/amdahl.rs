//! Amdahl's law: what a share of the work that cannot be divided leaves of the gain of many servers. Pure.

/// Throughput of `servers` over that of one, if the share `serial` (0 to 1) of the work runs as on one server.
pub fn gain(serial: f64, servers: f64) -> f64 {
    1.0 / (serial + (1.0 - serial) / servers)
}

/// The serial share that fits best: least squares of 1/gain, in which the law is linear. `points`: servers, and throughput over that of one
/// server. Negative if the gains exceed the number of servers. `None` without a gain of more than one server.
pub fn serial_share(points: &[(f64, f64)]) -> Option<f64> {
    // 1/gain − 1/servers = serial × (1 − 1/servers)
    let (mut products, mut squares) = (0.0, 0.0);
    for &(servers, gain) in points.iter().filter(|(_, gain)| *gain > 0.0) {
        let (x, y) = (1.0 - 1.0 / servers, 1.0 / gain - 1.0 / servers);
        products += x * y;
        squares += x * x;
    }
    (squares > 0.0).then(|| products / squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_of_sixteen_is_a_serial_share_of_14_7_percent() {
        let share = serial_share(&[(16.0, 5.0)]).unwrap();
        assert!((share - 0.1467).abs() < 1e-4, "{share}");
        assert!((gain(share, 16.0) - 5.0).abs() < 1e-9);
        assert_eq!((gain(0.0, 16.0), gain(1.0, 16.0)), (16.0, 1.0));
    }

    #[test]
    fn the_fit_finds_the_share_of_the_law_and_the_middle_of_others() {
        let counts = [1.0, 2.0, 4.0, 8.0, 16.0];
        for serial in [0.0, 0.03, 0.5, 1.0] {
            let share = serial_share(&counts.map(|servers| (servers, gain(serial, servers)))).unwrap();
            assert!((share - serial).abs() < 1e-12, "{share}");
        }
        let between = serial_share(&[(16.0, gain(0.1, 16.0)), (16.0, gain(0.2, 16.0))]).unwrap();
        assert!((between - 0.15).abs() < 1e-12, "{between}");
        assert!(serial_share(&[(2.0, 2.1)]).unwrap() < 0.0);
    }

    #[test]
    fn without_a_gain_of_several_servers_there_is_no_share() {
        assert_eq!(serial_share(&[]), None);
        assert_eq!(serial_share(&[(1.0, 1.0)]), None);
        assert_eq!(serial_share(&[(16.0, 0.0)]), None);
    }
}
