//! Statistics over stored per-example scores: pure functions, seeded where random.

pub mod point;
