//! Example of docs/extending.md: refuses ids that the testbed never issues. It costs no memory and no round trip.

use contract::UserId;

/// `u` and at least six digits, as `./testbed data generate` makes them.
#[derive(Debug, Clone, Copy)]
pub struct IssuedIds;

impl IssuedIds {
    /// Whether the id can belong to a user. `false`: answer with popular items, without the store.
    pub fn may_exist(self, user_id: &UserId) -> bool {
        let digits = user_id.as_str().strip_prefix('u').unwrap_or_default();
        digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit())
    }
}

#[test]
fn only_issued_ids_may_exist() {
    let may_exist = |id: &str| IssuedIds.may_exist(&UserId::new(id).unwrap());
    assert!(may_exist("u000042") && may_exist("u1234567"));
    assert!(!may_exist("u42") && !may_exist("x000042") && !may_exist("u00004b"));
}
