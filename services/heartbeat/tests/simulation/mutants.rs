//! Mutants: each breaks one rule, and the simulation notices.
