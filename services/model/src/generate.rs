//! Synthetic behaviour data: users have tastes that collaborative filtering can find.
//!
//! * Items belong to clusters; within one, popularity follows Zipf's law (1/rank), and clusters differ in popularity too.
//! * A user prefers one to three clusters; occasionally one is replaced (drift). One event in ten ignores the preferences.
//! * A tenth of the users are heavy (four times the mean). Each user has at least one event.
//! * Events come in sessions; a view may lead to a cart, a cart to a purchase of the same item.
//!
//! It uses only additions, multiplications, divisions and comparisons, whose results IEEE 754 defines: the same parameters
//! give the same bytes on every machine.

use contract::{EventKind, ItemId, UserId};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::dataset::{Dataset, Interaction};

/// End of the time range, 2026-01-01T00:00:00Z. Fixed, so that the data is reproducible.
const END_MS: i64 = 1_767_225_600_000;
const MAX_EVENTS_PER_USER: u32 = 500;

const MS_PER_DAY: i64 = 86_400_000;
/// Longest pause within a session. Times strictly increase, and `MAX_EVENTS_PER_USER` pauses fit into the last day, in which no session
/// starts.
const MAX_PAUSE_S: i64 = 120;
const EVENTS_PER_SESSION: u32 = 6;
const INTERESTS: usize = 3;

const HEAVY_USERS: f64 = 0.1;
const HEAVY_FACTOR: f64 = 4.0;
const OFF_TASTE: f64 = 0.1;
const SWITCH_INTEREST: f64 = 0.125;
const DRIFT: f64 = 0.025;
const VIEW_TO_CART: f64 = 0.2;
const CART_TO_PURCHASE: f64 = 0.4;
/// How often an item that the user has already is drawn again.
const REDRAWS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerateParams {
    pub seed: u64,
    /// 1..=9,999,999.
    pub users: u32,
    /// `clusters`..=999,999.
    pub items: u32,
    /// 1 or more.
    pub clusters: u32,
    /// 2.0..=50.0.
    pub mean_events_per_user: f64,
    /// 2..=3650, ending at `END_MS`.
    pub span_days: u32,
}

impl Default for GenerateParams {
    fn default() -> Self {
        Self { seed: 1, users: 200_000, items: 10_000, clusters: 50, mean_events_per_user: 12.0, span_days: 90 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {rule}")]
pub struct GenerateError {
    pub field: &'static str,
    pub rule: &'static str,
}

/// Users and items are in order of id, events in order of user and time. An unpopular item may have no event.
///
/// # Errors
/// A parameter outside its range.
pub fn generate(params: &GenerateParams) -> Result<Dataset, GenerateError> {
    params.check()?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(params.seed);
    let catalogue = Catalogue::new(params, &mut rng);
    let mut events = Vec::with_capacity((f64::from(params.users) * params.mean_events_per_user * 1.1) as usize);
    for user in 0..params.users {
        behave(user, params, &catalogue, &mut rng, &mut events);
    }
    let checked = "a letter and digits are a valid id";
    Ok(Dataset {
        users: (0..params.users).map(|n| UserId::new(&format!("u{n:06}")).expect(checked)).collect(),
        items: (0..params.items).map(|n| ItemId::new(&format!("i{n:05}")).expect(checked)).collect(),
        events,
    })
}

impl GenerateParams {
    fn check(&self) -> Result<(), GenerateError> {
        let rules = [
            ("users", (1..=9_999_999).contains(&self.users), "1 to 9,999,999"),
            ("clusters", self.clusters >= 1, "at least 1"),
            ("items", (self.clusters..=999_999).contains(&self.items), "between the number of clusters and 999,999"),
            ("mean events per user", (2.0..=50.0).contains(&self.mean_events_per_user), "2 to 50"),
            ("span in days", (2..=3650).contains(&self.span_days), "2 to 3650"),
        ];
        match rules.into_iter().find(|(_, kept, _)| !kept) {
            Some((field, _, rule)) => Err(GenerateError { field, rule }),
            None => Ok(()),
        }
    }
}

struct Catalogue {
    /// Items of each cluster, most popular first.
    clusters: Vec<Vec<u32>>,
    /// Running sums of 1/rank, for the largest cluster; smaller ones use the start of it.
    item_sums: Vec<f64>,
    cluster_sums: Vec<f64>,
}

impl Catalogue {
    fn new(params: &GenerateParams, rng: &mut Xoshiro256PlusPlus) -> Self {
        // Shuffled, so that ids are independent of popularity.
        let mut items: Vec<u32> = (0..params.items).collect();
        for last in (1..items.len()).rev() {
            items.swap(last, rng.random_range(0..=last));
        }
        let mut clusters = vec![Vec::new(); params.clusters as usize];
        for (n, item) in items.into_iter().enumerate() {
            clusters[n % params.clusters as usize].push(item);
        }
        let sums = |count: usize, flatten: f64| {
            let mut sum = 0.0;
            (0..count)
                .map(|rank| {
                    sum += 1.0 / (rank as f64 + 1.0 + flatten);
                    sum
                })
                .collect()
        };
        Catalogue { item_sums: sums(clusters[0].len(), 0.0), cluster_sums: sums(clusters.len(), 10.0), clusters }
    }

    fn cluster(&self, rng: &mut Xoshiro256PlusPlus) -> usize {
        draw(&self.cluster_sums, rng)
    }

    fn item(&self, cluster: usize, rng: &mut Xoshiro256PlusPlus) -> u32 {
        let items = &self.clusters[cluster];
        items[draw(&self.item_sums[..items.len()], rng)]
    }
}

/// An index, with the probability of its step in the running sums.
fn draw(sums: &[f64], rng: &mut Xoshiro256PlusPlus) -> usize {
    let total = sums[sums.len() - 1];
    let at = rng.random::<f64>() * total;
    sums.partition_point(|&sum| sum <= at).min(sums.len() - 1)
}

fn behave(
    user: u32,
    params: &GenerateParams,
    catalogue: &Catalogue,
    rng: &mut Xoshiro256PlusPlus,
    events: &mut Vec<Interaction>,
) {
    let count = event_count(params.mean_events_per_user, rng);
    let sessions = session_starts(count, params.span_days, rng);
    let mut interests: Vec<usize> = (0..rng.random_range(1..=INTERESTS)).map(|_| catalogue.cluster(rng)).collect();
    let mut current = 0;
    let first = events.len();
    let mut at_ms = i64::MIN;
    for n in 0..count {
        let pause_ms = 1000 * rng.random_range(1..=MAX_PAUSE_S);
        at_ms = at_ms.saturating_add(pause_ms).max(sessions[(n / EVENTS_PER_SESSION) as usize]);
        let last = if n == 0 { None } else { events.last().copied() };
        let (item, kind) = match last {
            Some(e) if e.kind == EventKind::View && rng.random_bool(VIEW_TO_CART) => (e.item, EventKind::Cart),
            Some(e) if e.kind == EventKind::Cart && rng.random_bool(CART_TO_PURCHASE) => (e.item, EventKind::Purchase),
            _ => {
                if rng.random_bool(SWITCH_INTEREST) {
                    current = rng.random_range(0..interests.len());
                }
                if rng.random_bool(DRIFT) {
                    interests[current] = catalogue.cluster(rng);
                }
                let cluster = if rng.random_bool(OFF_TASTE) { catalogue.cluster(rng) } else { interests[current] };
                (new_item(cluster, catalogue, &events[first..], rng), EventKind::View)
            }
        };
        events.push(Interaction { user, item, kind, at_ms, weight: kind.default_weight() });
    }
}

fn new_item(cluster: usize, catalogue: &Catalogue, met: &[Interaction], rng: &mut Xoshiro256PlusPlus) -> u32 {
    let mut item = catalogue.item(cluster, rng);
    for _ in 0..REDRAWS {
        if !met.iter().any(|e| e.item == item) {
            break;
        }
        item = catalogue.item(cluster, rng);
    }
    item
}

/// Geometric, from two kinds of users whose means average to `mean`.
fn event_count(mean: f64, rng: &mut Xoshiro256PlusPlus) -> u32 {
    let light_factor = (1.0 - HEAVY_USERS * HEAVY_FACTOR) / (1.0 - HEAVY_USERS);
    let factor = if rng.random_bool(HEAVY_USERS) { HEAVY_FACTOR } else { light_factor };
    let goes_on = 1.0 - 1.0 / (mean * factor);
    let mut count = 1;
    while count < MAX_EVENTS_PER_USER && rng.random_bool(goes_on) {
        count += 1;
    }
    count
}

fn session_starts(events: u32, span_days: u32, rng: &mut Xoshiro256PlusPlus) -> Vec<i64> {
    let span_ms = i64::from(span_days) * MS_PER_DAY;
    let seconds = (span_ms - MS_PER_DAY) / 1000;
    let mut starts: Vec<i64> = (0..events.div_ceil(EVENTS_PER_SESSION))
        .map(|_| END_MS - span_ms + 1000 * rng.random_range(0..seconds))
        .collect();
    starts.sort_unstable();
    starts
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        parse::{BadRows, parse, write_csv},
        quality::leave_last_out,
    };

    fn small() -> GenerateParams {
        GenerateParams { users: 3_000, items: 1_000, clusters: 20, ..GenerateParams::default() }
    }

    fn csv(params: &GenerateParams) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_csv(&generate(params).unwrap(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let bytes = csv(&small());
        assert_eq!(bytes, csv(&small()));
        assert_ne!(bytes, csv(&GenerateParams { seed: 2, ..small() }));
        // Published figures state a seed: if this hash changes, they no longer apply.
        assert_eq!(xxhash_rust::xxh3::xxh3_64(&bytes), GOLDEN, "{:#x}", xxhash_rust::xxh3::xxh3_64(&bytes));
    }
    const GOLDEN: u64 = 0x3929_30e2_7c6d_74c5;

    #[test]
    fn behaviour_has_the_promised_shape() {
        let params = small();
        let data = generate(&params).unwrap();
        let users = data.users.len();
        assert_eq!((data.users[7].as_str(), data.items[42].as_str()), ("u000007", "i00042"));
        let mut per_user = vec![0_u32; users];
        let mut per_item = vec![0_u32; data.items.len()];
        for e in &data.events {
            per_user[e.user as usize] += 1;
            per_item[e.item as usize] += 1;
        }
        assert!(per_user.iter().all(|n| (1..=MAX_EVENTS_PER_USER).contains(n)));
        let mean = data.events.len() as f64 / users as f64;
        assert!((11.0..13.0).contains(&mean), "{mean}");
        per_user.sort_unstable();
        let heaviest: u32 = per_user[users * 9 / 10..].iter().sum();
        assert!(f64::from(heaviest) > 0.3 * data.events.len() as f64, "not skewed: {heaviest}");
        per_item.sort_unstable();
        let top: u32 = per_item[data.items.len() * 9 / 10..].iter().sum();
        assert!(f64::from(top) > 0.3 * data.events.len() as f64, "no popular items: {top}");

        let in_range = END_MS - i64::from(params.span_days) * MS_PER_DAY..=END_MS;
        assert!(data.events.iter().all(|e| in_range.contains(&e.at_ms)));
        let rising = |pair: &[Interaction]| pair[0].user != pair[1].user || pair[0].at_ms < pair[1].at_ms;
        assert!(data.events.windows(2).all(rising));
        let kinds: HashSet<_> = data.events.iter().map(|e| e.kind).collect();
        assert_eq!(kinds, HashSet::from([EventKind::View, EventKind::Cart, EventKind::Purchase]));
    }

    #[test]
    fn written_and_read_back_nothing_is_bad_or_double() {
        let bytes = csv(&small());
        let (data, report) = parse(bytes.as_slice(), BadRows::Refuse).unwrap();
        assert_eq!((report.bad_rows, report.duplicates), (0, 0));
        assert_eq!(data.events.len(), generate(&small()).unwrap().events.len());
    }

    #[test]
    fn tastes_can_be_learned() {
        let report = leave_last_out(&generate(&small()).unwrap()).unwrap();
        assert!(report.ndcg_ratio.unwrap() > 2.0, "{report:?}");
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        for (params, field) in [
            (GenerateParams { users: 0, ..small() }, "users"),
            (GenerateParams { clusters: 0, ..small() }, "clusters"),
            (GenerateParams { items: 19, ..small() }, "items"),
            (GenerateParams { mean_events_per_user: f64::NAN, ..small() }, "mean events per user"),
            (GenerateParams { span_days: 1, ..small() }, "span in days"),
        ] {
            assert_eq!(generate(&params).unwrap_err().field, field);
        }
    }
}
