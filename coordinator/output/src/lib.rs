//! Tables and the report of an experiment, from its stored scores and nothing else.

pub mod results;
