//! Paths of the API, as they appear in the metric label `http_route`.

pub const RECOMMENDATIONS: &str = "/recommendations";
pub const NEIGHBOURS: &str = "/items/{id}/neighbours";
pub const POPULAR: &str = "/popular";
pub const USERS: &str = "/users";
pub const EVENTS: &str = "/events";
pub const OPENAPI: &str = "/openapi.json";

pub const ALL: [&str; 6] = [RECOMMENDATIONS, NEIGHBOURS, POPULAR, USERS, EVENTS, OPENAPI];
