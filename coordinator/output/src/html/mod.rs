//! `report.html`: one file that needs nothing else. Findings in words come first, then the figures that show them. Drawings
//! and tables stand in the page as they are; the script adds what is told when something is pointed at, and downloads.

mod conditional;
mod data;
mod orders;
mod provenance;
mod words;

use crate::analyse::{Analysis, Group, analyse};
use crate::facts;
use crate::figure::draw::{count, escape, interval, number, percent, q_value, signed};
use crate::figure::ink::{self, Theme};
use crate::figure::{self, Figure, Part, raster};
use crate::results::Results;
use crate::write::{WrittenFile, atomically};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use words::Shown;

/// Writes the report.
///
/// # Errors
/// Where the file can't be written.
pub fn report(results: &Results, path: &Path) -> anyhow::Result<()> {
    report_analysed(results, &analyse(results), path)
}

/// [`report`] with an analysis made before.
///
/// # Errors
/// As [`report`].
pub fn report_analysed(results: &Results, analysis: &Analysis, path: &Path) -> anyhow::Result<()> {
    let page = page(results, analysis, &figure::figures(results, analysis)?)?;
    atomically(path, |file| Ok(file.write_all(page.as_bytes())?))
}

/// Writes `report.html`, and every figure as SVG and PNG in `figures/`, into `dir`, which is made where it is missing.
///
/// # Errors
/// Where a file can't be written.
pub fn present(results: &Results, analysis: &Analysis, dir: &Path) -> anyhow::Result<Vec<WrittenFile>> {
    std::fs::create_dir_all(dir).with_context(|| format!("can't make the folder {}", dir.display()))?;
    let figures = figure::figures(results, analysis)?;
    let page = page(results, analysis, &figures)?;
    let path = dir.join("report.html");
    atomically(&path, |file| Ok(file.write_all(page.as_bytes())?))?;
    let mut written = vec![WrittenFile { path, rows: 0 }];
    written.extend(figure::write(&figures, &dir.join("figures"))?);
    Ok(written)
}

/// What of the page is allowed to be fetched: nothing but what is in it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:";

fn page(results: &Results, analysis: &Analysis, figures: &[Figure]) -> anyhow::Result<String> {
    let page = Page { results, analysis, figures };
    let title = escape(&results.plan.spec.name);
    let mut fonts = String::new();
    for (weight, bytes) in raster::WEB_FONTS {
        write!(
            fonts,
            "@font-face{{font-family:Inter;font-weight:{weight};src:url(data:font/woff2;base64,{}) format('woff2')}}",
            STANDARD.encode(bytes)
        )?;
    }
    let (light, dark) = (ink::css(Theme::Light), ink::css(Theme::Dark));
    let (style, script) = (include_str!("style.css"), include_str!("app.js"));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title} · Ablate</title>\n<style id=\"fonts\">{fonts}</style>\n\
         <style>:root{{color-scheme:light;{light}}}@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{dark}}}}}\n{style}</style>\n\
         </head>\n<body>\n<main>\n{}</main>\n<div id=\"tip\" role=\"status\" aria-live=\"polite\" hidden></div>\n\
         {}<script>\n{script}</script>\n</body>\n</html>\n",
        page.body()?,
        data::blocks(results, analysis, figures),
    ))
}

/// What the parts of the page are made of.
struct Page<'a> {
    results: &'a Results,
    analysis: &'a Analysis,
    figures: &'a [Figure],
}

impl Page<'_> {
    fn body(&self) -> anyhow::Result<String> {
        let mut out = String::new();
        let several = self.analysis.groups.len() > 1;
        self.header(&mut out)?;
        for w in facts::run_warnings(self.results) {
            writeln!(out, "<p class=\"warn\">{}</p>", escape(&w))?;
        }
        writeln!(out, "<section id=\"findings\"><h2>Findings</h2>")?;
        for (at, g) in self.analysis.groups.iter().enumerate() {
            self.findings(&mut out, at, g, several)?;
        }
        writeln!(out, "</section>")?;
        for (at, g) in self.analysis.groups.iter().enumerate() {
            self.group(&mut out, at, g)?;
        }
        for (part, id, title, lede) in [
            (Part::Across, "across", "Across tasks and scores", ""),
            (
                Part::Portraits,
                "portraits",
                "Head portraits",
                "What the most important heads attend to, with nothing removed.",
            ),
        ] {
            let figures: Vec<&Figure> =
                self.figures.iter().filter(|f| f.part == part && f.group.is_none()).collect();
            if !figures.is_empty() {
                writeln!(out, "<section id=\"{id}\"><h2>{title}</h2>")?;
                if !lede.is_empty() {
                    writeln!(out, "<p class=\"lede\">{lede}</p>")?;
                }
                self.row(&mut out, &figures)?;
                writeln!(out, "</section>")?;
            }
        }
        provenance::exact(&mut out, self.results)?;
        provenance::provenance(&mut out, self.results)?;
        Ok(out)
    }

    fn title(&self, g: &Group) -> String {
        escape(&figure::title_of(g, &self.analysis.groups))
    }

    fn header(&self, out: &mut String) -> anyhow::Result<()> {
        let plan = &self.results.plan;
        writeln!(
            out,
            "<header><p class=\"eyebrow\">Ablate report</p><h1>{}</h1>\n<p class=\"lede\">Which of the {} attention heads of {} do the work, which stand in for each other, and how many can go.</p>",
            escape(&plan.spec.name),
            count(plan.heads().len()),
            escape(&plan.model.title)
        )?;
        write!(out, "<nav aria-label=\"Contents\"><a href=\"#findings\">Findings</a>")?;
        for (at, g) in self.analysis.groups.iter().enumerate() {
            write!(out, "<a href=\"#g{at}\">{}</a>", self.title(g))?;
        }
        for (part, id, title) in
            [(Part::Across, "across", "Across tasks"), (Part::Portraits, "portraits", "Portraits")]
        {
            if self.figures.iter().any(|f| f.part == part && f.group.is_none()) {
                write!(out, "<a href=\"#{id}\">{title}</a>")?;
            }
        }
        writeln!(
            out,
            "<a href=\"#exact\">Exact, screened and sampled</a><a href=\"#provenance\">Provenance</a></nav></header>"
        )?;
        Ok(())
    }

    fn findings(&self, out: &mut String, at: usize, g: &Group, several: bool) -> anyhow::Result<()> {
        if several {
            writeln!(out, "<h3 class=\"of\">{}</h3>", self.title(g))?;
        }
        write!(out, "<dl class=\"glance\">")?;
        for (value, what) in self.glance(g) {
            write!(out, "<div><dd>{}</dd><dt>{}</dt></div>", escape(&value), escape(&what))?;
        }
        write!(out, "</dl>\n<ol class=\"findings\">")?;
        for f in words::findings(g) {
            write!(out, "<li><b>{}</b> {}", escape(&f.lead), escape(&f.text))?;
            match f.shown {
                Shown::Figure(kind) => {
                    if let Some(figure) = words::shown_by(self.figures, at, kind) {
                        write!(out, " <a href=\"#{}\">Figure {}</a>", figure.name, self.number(figure))?;
                    }
                }
                Shown::Given(k) => write!(out, " <a href=\"#{}\">Table</a>", conditional::id(at, k))?,
            }
            writeln!(out, "</li>")?;
        }
        writeln!(out, "</ol>")?;
        Ok(())
    }

    /// A few numbers to begin with.
    fn glance(&self, g: &Group) -> Vec<(String, String)> {
        let metric = figure::of_group::metric(g);
        let mut out = vec![(number(g.baseline), format!("{metric} with every head"))];
        if let Some((floor, _)) = g.floor {
            out.push((number(floor), format!("{metric} with none")));
        }
        if !g.heads.is_empty() {
            let (hurts, helps) = facts::resolved_heads(g);
            out.push((
                format!("{} / {}", count(hurts + helps), count(g.heads.len())),
                format!("{} with a resolved effect", g.unit.plural()),
            ));
        }
        if !g.pairs.is_empty() {
            let redundant = facts::count(g, crate::analyse::Relation::Redundant);
            out.push((count(redundant), format!("redundant of {} pairs", count(g.pairs.len()))));
        }
        let greedy = g.curves.iter().find(|c| c.order == "greedy" && c.objective == g.name);
        let greedy = greedy.or_else(|| g.curves.iter().find(|c| c.order == "greedy"));
        if let Some((p, r)) = greedy.and_then(|c| c.at(0.79)).and_then(|p| Some((p, p.retained?))) {
            let within = p.retained_low.zip(p.retained_high).map_or_else(String::new, |(low, high)| {
                format!(", 95 % interval {} to {}", percent(low), percent(high))
            });
            out.push((percent(r), format!("retained without 79 % of the heads{within}")));
        }
        out.push((count(g.examples), format!("examples in {} clusters", count(g.clusters))));
        out
    }

    /// The number of a figure: its place among those that are shown.
    fn number(&self, figure: &Figure) -> usize {
        // Sections come in the order of groups and parts; what is of no group comes last.
        let place = |f: &Figure| (f.group.unwrap_or(usize::MAX), f.part);
        let mut shown: Vec<&Figure> = self.figures.iter().filter(|f| !f.instead).collect();
        shown.sort_by_key(|f| place(f));
        shown.iter().position(|f| f.name == figure.name).map_or(0, |k| k + 1)
    }

    fn group(&self, out: &mut String, at: usize, g: &Group) -> anyhow::Result<()> {
        let kind =
            self.results.plan.tasks.get(g.task as usize).map_or("", |t| t.kind.name()).replace('_', " ");
        let of = if g.unit == ablate_common::units::UnitKind::Head {
            String::new()
        } else {
            format!(" of {}", g.unit.plural())
        };
        writeln!(
            out,
            "<section id=\"g{at}\"><p class=\"eyebrow\">{} · {} ablation{of}</p><h2>{}</h2>",
            escape(&kind),
            g.method,
            self.title(g)
        )?;
        for w in facts::warnings(self.results, g) {
            writeln!(out, "<p class=\"warn\">{}</p>", escape(&w))?;
        }
        for (part, title) in [
            (Part::Heads, "Alone"),
            (Part::Pairs, "Together"),
            (Part::Curves, "Pruned"),
            (Part::Portraits, "Portraits"),
        ] {
            let figures: Vec<&Figure> =
                self.figures.iter().filter(|f| f.part == part && f.group == Some(at)).collect();
            let listed = part == Part::Pairs && g.conditional.iter().any(|c| !c.pairs.is_empty());
            if figures.is_empty() && !listed {
                continue;
            }
            writeln!(out, "<h3>{title}</h3>")?;
            if !figures.is_empty() {
                self.row(out, &figures)?;
            }
            match part {
                Part::Heads => heads_table(out, g)?,
                Part::Pairs => conditional::tables(out, at, g)?,
                Part::Curves => orders::tables(out, g)?,
                _ => {}
            }
        }
        writeln!(out, "</section>")?;
        Ok(())
    }

    /// Figures side by side where they fit.
    fn row(&self, out: &mut String, figures: &[&Figure]) -> anyhow::Result<()> {
        writeln!(out, "<div class=\"row\">")?;
        let mut at = 0;
        while let Some(f) = figures.get(at) {
            let instead = figures.get(at + 1).filter(|n| n.instead);
            self.figure(out, f, instead.copied())?;
            at += if instead.is_some() { 2 } else { 1 };
        }
        writeln!(out, "</div>")?;
        Ok(())
    }

    fn figure(&self, out: &mut String, f: &Figure, instead: Option<&Figure>) -> anyhow::Result<()> {
        let group = f.group.map_or_else(String::new, |g| format!(" data-group=\"{g}\""));
        let order = |f: &Figure| {
            f.order.as_ref().map_or_else(String::new, |o| {
                let list: Vec<String> = o.iter().map(usize::to_string).collect();
                format!(" data-order=\"{}\"", list.join(" "))
            })
        };
        write!(out, "<figure id=\"{}\" style=\"--w:{}px\"{group}>", f.name, f.width())?;
        write!(out, "<div class=\"drawing\" data-name=\"{}\"{}>{}</div>", f.name, order(f), f.svg)?;
        if let Some(other) = instead {
            write!(
                out,
                "<div class=\"drawing\" data-name=\"{}\" data-how=\"{}\"{} hidden>{}</div>",
                other.name,
                escape(&other.how),
                order(other),
                other.svg
            )?;
        }
        writeln!(
            out,
            "<figcaption><b>Figure {}. {}.</b> <span class=\"found\">{}</span> <span class=\"how\">{}</span></figcaption></figure>",
            self.number(f),
            escape(f.title.trim_end_matches(['.', '?'])),
            escape(&f.finding),
            escape(&f.how)
        )?;
        Ok(())
    }
}

/// Every unit of a group, up to 2,000, in a table that can be opened.
fn heads_table(out: &mut String, g: &Group) -> anyhow::Result<()> {
    let rows = facts::top_heads(g, 2000);
    let one = figure::of_group::one(g.unit);
    let which = if rows.len() < g.heads.len() {
        format!("The first {} of {}", count(rows.len()), count(g.heads.len()))
    } else {
        format!("All {}", count(g.heads.len()))
    };
    write!(
        out,
        "<details><summary>{which} {} as a table</summary><div class=\"wide\"><table><thead><tr><th>{one}</th><th class=\"r\">{}</th><th class=\"r\">Δ</th><th class=\"r\">95 % interval</th><th class=\"r\">q</th></tr></thead><tbody>",
        g.unit.plural(),
        escape(&figure::of_group::metric(g))
    )?;
    for h in rows {
        let d = &h.delta;
        write!(
            out,
            "<tr><td>{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td></tr>",
            escape(g.name_of(h.ix)),
            number(h.value),
            signed(d.value),
            interval(d.low, d.high),
            q_value(h.q)
        )?;
    }
    writeln!(out, "</tbody></table></div></details>")?;
    Ok(())
}
