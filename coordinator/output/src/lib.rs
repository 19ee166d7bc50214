//! Tables and the report of an experiment, from its stored scores and nothing else.
//!
//! [`analyse`] does the statistics once; [`export`], [`report`] and [`headline`] print them. The `_analysed`
//! forms share one analysis.

mod agreement;
mod analyse;
mod attention;
mod constants;
mod curve;
mod facts;
mod gradients;
mod html;
pub mod joint;
mod joint_tables;
mod measure;
mod repair;
pub mod results;
mod scores;
mod shift;
mod tables;
#[cfg(test)]
mod tests;
mod text;
mod view;
mod write;

pub use agreement::AgreementRow;
pub use analyse::{Analysis, Group, HeadRow, PairRow, Relation, analyse};
pub use attention::{AttentionRow, Pattern, patterns};
pub use curve::{Curve, Point};
pub use facts::partial;
pub use gradients::GradientRow;
pub use html::{report, report_analysed};
pub use joint::{GroupRow, TripleRow};
pub use repair::RepairRow;
pub use shift::ShiftRow;
pub use text::{headline, headline_analysed};
pub use write::{Format, Written, WrittenFile, export, export_analysed};
