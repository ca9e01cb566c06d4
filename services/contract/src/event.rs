//! Events: actions of users on items.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ItemId, UserId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    View,
    Cart,
    Purchase,
    Rating,
}

impl EventKind {
    /// The value of the column `behaviour.kind`. It must never change.
    pub fn code(self) -> u8 {
        match self {
            Self::View => 0,
            Self::Cart => 1,
            Self::Purchase => 2,
            Self::Rating => 3,
        }
    }

    pub fn from_code(code: u8) -> Option<Self> {
        [Self::View, Self::Cart, Self::Purchase, Self::Rating].into_iter().find(|k| k.code() == code)
    }

    /// The weight of an event without one. The weight of a rating is its value; its default is the middle of the scale.
    pub fn default_weight(self) -> f32 {
        match self {
            Self::View => 1.0,
            Self::Cart => 2.0,
            Self::Purchase => 4.0,
            Self::Rating => 3.0,
        }
    }
}

impl std::str::FromStr for EventKind {
    type Err = UnknownEventKind;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "view" => Ok(Self::View),
            "cart" => Ok(Self::Cart),
            "purchase" => Ok(Self::Purchase),
            "rating" => Ok(Self::Rating),
            _ => Err(UnknownEventKind),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not one of view, cart, purchase, rating")]
pub struct UnknownEventKind;

/// Weights of events: wider than any rating, and narrow enough that no `f32` or sum of them becomes 0 or infinite. `NewEvent` documents it.
pub const WEIGHTS: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

/// The latest time of an event, Unix ms: the end of the year 9999.
pub const LATEST_MS: i64 = 253_402_300_799_999;

/// One entry of a user's behaviour log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub user_id: UserId,
    pub item_id: ItemId,
    pub kind: EventKind,
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// > 0 and finite.
    pub weight: f32,
}
