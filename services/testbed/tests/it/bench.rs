//! That the comparisons run; what they come to is for a release build on a quiet machine.

use crate::Home;

#[test]
fn a_hit_is_compared_with_the_least_that_can_be_done() {
    let Some(home) = Home::new() else { return };
    let json = home.json(&["bench", "hit", "--repeats", "1", "--json"]);
    let sides = json["sides"].as_array().unwrap();
    let names: Vec<&str> = sides.iter().map(|side| side["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["api × 64", "bare × 64", "api with in-process cache × 64"], "{json}");
    assert_eq!(names.len(), 9, "three at each concurrency");
    let bytes = |side: usize| sides[side]["figures"]["body_bytes"]["median"].as_f64().unwrap();
    assert!(bytes(0) > 100.0 && (1..9).all(|side| (bytes(0) - bytes(side)).abs() < 5.0), "all answer the same: {json}");
    assert!(json["ratio_median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{json}");
    assert!(json["conditions"]["versions"]["redis"].is_string(), "{json}");
    assert_eq!(home.processes(), [] as [u64; 0]);
}
