//! `ablate compare`: whether runs rank the heads alike.

use super::args::CompareArgs;
use super::client;
use super::fail::Fail;
use super::folder;
use super::say;
use ablate_output::Format;
use ablate_output::compare::{Run, compare as compared};
use std::path::Path;

/// Bootstraps over heads are drawn with this seed, whatever the runs': they have several.
const SEED: u64 = 0;

/// `ablate compare`.
pub async fn compare(args: CompareArgs) -> Result<u8, Fail> {
    let out = args.out.as_deref().map(|path| Ok::<_, Fail>((path, format(path)?))).transpose()?;
    let mut runs = Vec::with_capacity(args.runs.len());
    for folder in &args.runs {
        runs.push(run(folder).await?);
    }
    let found = compared(&runs, SEED).map_err(|e| Fail::with_advice(2, &e))?;
    if let Some((path, format)) = out {
        found.write(path, format).map_err(|e| Fail::failed(format!("{e:#}")))?;
    }
    if args.json {
        let text = serde_json::to_string_pretty(&found).map_err(|e| Fail::failed(e.to_string()))?;
        say::out(text);
    } else {
        say::out(found.text(args.show).trim_end());
    }
    Ok(0)
}

/// The deltas of a folder: from its stored scores, else from its tables.
async fn run(folder: &Path) -> Result<Run, Fail> {
    let name = folder.display().to_string();
    if !folder.is_dir() {
        return Err(Fail::wrong(format!("there is no folder {name}"))
            .help("give folders of `ablate run` or `ablate export`"));
    }
    if folder::state(folder).exists() {
        return Ok(Run::of(name, &client::of_folder(folder).await?));
    }
    match Run::read(name, folder) {
        Ok(Some(run)) => Ok(run),
        Ok(None) => {
            Err(Fail::wrong("the folder holds neither a run (state.db) nor a table of heads (heads.parquet)")
                .at(folder.display().to_string())
                .help("give folders of `ablate run` or `ablate export`"))
        }
        Err(e) => Err(Fail::failed(format!("{e:#}")).help("export the tables again")),
    }
}

/// The format that a file's name asks for.
fn format(path: &Path) -> Result<Format, Fail> {
    let known = [Format::Parquet, Format::Csv, Format::Json];
    let ending = path.extension().and_then(|e| e.to_str());
    known.into_iter().find(|f| Some(f.extension()) == ending).ok_or_else(|| {
        Fail::wrong(format!("--out {}: its format isn't known", path.display()))
            .help("name a file that ends in .parquet, .csv or .json")
    })
}
