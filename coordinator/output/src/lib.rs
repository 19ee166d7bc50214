//! Tables and the report of an experiment, from its stored scores and nothing else.
//!
//! [`analyse`] does the statistics once; [`export`], [`report`] and [`headline`] print them, [`present`] the report with its
//! figures beside it. The `_analysed`
//! forms share one analysis.

mod agreement;
mod analyse;
mod constants;
mod curve;
mod facts;
mod figure;
mod gradients;
mod html;
pub mod joint;
mod joint_tables;
mod measure;
pub mod results;
mod scores;
mod tables;
#[cfg(test)]
mod tests;
mod text;
mod view;
mod write;

pub use agreement::AgreementRow;
pub use analyse::{Analysis, Group, HeadRow, PairRow, Relation, analyse};
pub use curve::{Curve, Point};
pub use facts::partial;
pub use gradients::GradientRow;
pub use html::{present, report, report_analysed};
pub use joint::{GroupRow, TripleRow};
pub use text::{headline, headline_analysed};
pub use write::{Format, Written, WrittenFile, export, export_analysed};
