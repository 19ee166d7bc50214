//! Tables and the report of an experiment, from its stored scores and nothing else.
//!
//! [`analyse`] does the statistics once; [`export`], [`report`] and [`headline`] print them, [`present`] the report with its
//! figures beside it. The `_analysed`
//! forms share one analysis.

mod agreement;
mod analyse;
mod attention;
pub mod compare;
mod conditional;
mod constants;
mod curve;
mod facts;
mod figure;
mod gradients;
mod html;
pub mod joint;
mod joint_tables;
pub mod live;
mod measure;
mod orders;
mod poly;
mod reliability;
mod repair;
pub mod results;
mod scores;
mod selected;
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
pub use conditional::Conditional;
pub use curve::{Curve, Point};
pub use facts::partial;
pub use gradients::GradientRow;
pub use html::{present, report, report_analysed};
pub use joint::{GroupRow, TripleRow};
pub use orders::{OrderRow, orders};
pub use poly::PolyRow;
pub use reliability::ReliabilityRow;
pub use repair::RepairRow;
pub use selected::SelectedRow;
pub use shift::ShiftRow;
pub use text::{headline, headline_analysed};
pub use write::{Format, Written, WrittenFile, export, export_analysed};
