//! Files: written under a temporary name, then renamed, so that no reader sees half a table.

use crate::analyse::{Analysis, analyse};
use crate::results::Results;
use crate::{
    agreement, attention, conditional, constants, facts, joint_tables, orders, poly, reliability, repair,
    scores, selected, shift, tables,
};
use anyhow::Context as _;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Format of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet, zstd.
    Parquet,
    /// Comma-separated values; lists as text.
    Csv,
    /// A JSON array of objects, each with every column; NaN is null.
    Json,
}

impl Format {
    /// The files' extension.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenFile {
    /// Where it is.
    pub path: PathBuf,
    /// Rows of a table; 0 for other files.
    pub rows: u64,
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The files, in order of writing.
    pub files: Vec<WrittenFile>,
    /// Whether chunks of the plan are missing, so that tables lack rows.
    pub partial: bool,
}

/// Batches of a table, made as they are written.
type Batches<'a> = dyn Iterator<Item = anyhow::Result<RecordBatch>> + 'a;

/// Writes every table, `summary.json` and `run.json` into `dir`, which is made where it is missing. Equal
/// scores give equal bytes; only `run.json` holds anything that differs between runs.
///
/// # Errors
/// Where a file can't be written.
pub fn export(results: &Results, dir: &Path, format: Format) -> anyhow::Result<Written> {
    export_analysed(results, &analyse(results), dir, format)
}

/// [`export`] with an analysis made before.
///
/// # Errors
/// As [`export`].
pub fn export_analysed(
    results: &Results,
    analysis: &Analysis,
    dir: &Path,
    format: Format,
) -> anyhow::Result<Written> {
    std::fs::create_dir_all(dir).with_context(|| format!("can't make the folder {}", dir.display()))?;
    let mut written = Written { files: Vec::new(), partial: facts::partial(results) };
    let mut stream = |name: &str, batches: &mut Batches<'_>| -> anyhow::Result<()> {
        let Some(first) = batches.next().transpose()? else { return Ok(()) };
        let path = dir.join(format!("{name}.{}", format.extension()));
        let rows = table(&path, format, &first.schema(), &[], |write| {
            std::iter::once(Ok(first)).chain(batches).try_for_each(|b| match b? {
                b if b.num_rows() > 0 => write(&b),
                _ => Ok(()),
            })
        })?;
        written.files.push(WrittenFile { path, rows });
        Ok(())
    };
    stream("pairs", &mut tables::pairs(analysis))?;
    stream("conditional", &mut conditional::table(results, &analysis.groups))?;
    let mut put = |name: &str, batches: Vec<RecordBatch>| stream(name, &mut batches.into_iter().map(Ok));
    put("heads", tables::heads(analysis)?)?;
    put("groups", joint_tables::groups(results, analysis)?)?;
    put("triples", joint_tables::triples(results, analysis)?)?;
    put("gradients", tables::gradients(results, analysis)?)?;
    let first = analysis.groups.iter().filter(|g| g.ablation == 0);
    let heads: Vec<_> = first.map(|g| (g.task, g.attention.as_slice())).collect();
    put("attention", attention::table(results, &heads)?)?;
    put("repair", repair::table(results, &analysis.groups)?)?;
    put("shift", shift::table(results, &analysis.groups)?)?;
    put("constants", constants::table(results)?)?;
    put("curve", tables::curve(analysis)?)?;
    put("orders", orders::table(analysis)?)?;
    put("agreement", vec![agreement::table(&analysis.agreement)?])?;
    put("polysemanticity", poly::table(&analysis.polysemanticity)?)?;
    put("reliability", reliability::table(&analysis.groups)?)?;
    put("selected", selected::table(&analysis.groups)?)?;
    put("examples", tables::examples(results)?)?;
    if let Some(schema) = attention::schema(results)? {
        let path = dir.join(format!("patterns.{}", format.extension()));
        let rows = table(&path, format, &schema, &[], |write| attention::stream(results, |b| write(b)))?;
        written.files.push(WrittenFile { path, rows });
    }
    let path = dir.join(format!("scores.{}", format.extension()));
    let rows = table(&path, format, &scores::schema(results), &scores::score_columns(results), |write| {
        scores::stream(results, |b| write(b))
    })?;
    written.files.push(WrittenFile { path, rows });
    for (name, value) in
        [("summary.json", facts::summary(results, analysis)), ("run.json", facts::run(results))]
    {
        let path = dir.join(name);
        let mut text = serde_json::to_vec_pretty(&value)?;
        text.push(b'\n');
        atomically(&path, |file| Ok(file.write_all(&text)?))?;
        written.files.push(WrittenFile { path, rows: 0 });
    }
    Ok(written)
}

/// Writes a table of one batch.
///
/// # Errors
/// Where the file can't be written.
pub fn one(path: &Path, format: Format, batch: &RecordBatch) -> anyhow::Result<()> {
    table(path, format, &batch.schema(), &[], |write| write(batch)).map(|_| ())
}

/// Numbers temporary files: a process may write one table twice at the same time, and the later one must not cut the other's file off.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Fills a temporary file beside `path`, syncs it and gives it its name; removes it where that fails.
pub fn atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}.{number}.tmp", std::process::id()));
    let result = (|| {
        let mut file = BufWriter::new(File::create(&temporary)?);
        fill(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        std::fs::rename(&temporary, path)?;
        anyhow::Ok(())
    })();
    if result.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    result.with_context(|| format!("can't write {}", path.display()))
}

/// Writes one table; `lists` are its columns that are lists of floats. Returns its rows.
fn table(
    path: &Path,
    format: Format,
    schema: &SchemaRef,
    lists: &[&str],
    fill: impl FnOnce(&mut dyn FnMut(&RecordBatch) -> anyhow::Result<()>) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut rows = 0;
    atomically(path, |file| {
        match format {
            Format::Parquet => {
                let mut writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties(lists)?))?;
                fill(&mut |b| {
                    rows += b.num_rows() as u64;
                    writer.write(b)?;
                    // A row group of about 32 MiB: bounded memory, and a function of the rows only.
                    if writer.in_progress_size() > 32 << 20 {
                        writer.flush()?;
                    }
                    Ok(())
                })?;
                writer.close()?;
            }
            Format::Csv => {
                let mut writer = arrow_csv::WriterBuilder::new().with_header(true).build(file);
                // The header comes with the first batch, even an empty one.
                writer.write(&flat(&RecordBatch::new_empty(Arc::clone(schema)))?)?;
                fill(&mut |b| {
                    rows += b.num_rows() as u64;
                    Ok(writer.write(&flat(b)?)?)
                })?;
            }
            Format::Json => {
                // Every row has every column, so that a table of nulls keeps its columns.
                let nulls = arrow_json::WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = nulls.build::<_, arrow_json::writer::JsonArray>(file);
                fill(&mut |b| {
                    rows += b.num_rows() as u64;
                    Ok(writer.write(b)?)
                })?;
                writer.finish()?;
            }
        }
        Ok(())
    })?;
    Ok(rows)
}

fn properties(lists: &[&str]) -> anyhow::Result<WriterProperties> {
    let mut p = WriterProperties::builder()
        .set_created_by("ablate".into())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(1 << 17));
    for name in lists {
        // Floats that hardly repeat: no dictionary, and bytes of one significance side by side.
        let path = ColumnPath::new(vec![(*name).to_owned(), "list".to_owned(), "item".to_owned()]);
        p = p
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT);
    }
    Ok(p.build())
}

/// The cells of a column as JSON.
fn as_json(field: &Field, column: &ArrayRef) -> anyhow::Result<Vec<String>> {
    let schema = Arc::new(Schema::new(vec![Field::new("v", field.data_type().clone(), field.is_nullable())]));
    let mut lines = arrow_json::LineDelimitedWriter::new(Vec::new());
    lines.write(&RecordBatch::try_new(schema, vec![Arc::clone(column)])?)?;
    lines.finish()?;
    let text = String::from_utf8(lines.into_inner())?;
    let cell = |line: &str| {
        let inner = line.strip_prefix("{\"v\":").and_then(|l| l.strip_suffix('}'));
        inner.unwrap_or("").to_owned()
    };
    Ok(text.lines().map(cell).collect())
}

/// CSV has no lists: they become text, those of heads as JSON.
fn flat(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let (mut fields, mut columns) = (Vec::new(), Vec::<ArrayRef>::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if matches!(column.data_type(), DataType::List(item) if matches!(item.data_type(), DataType::Struct(_)))
        {
            columns.push(Arc::new(StringArray::from(as_json(field, column)?)));
            fields.push(Field::new(field.name(), DataType::Utf8, true));
        } else if matches!(column.data_type(), DataType::List(_)) {
            let options = FormatOptions::default();
            let text = ArrayFormatter::try_new(column, &options)?;
            let cell = |i| if column.is_null(i) { None } else { Some(text.value(i).to_string()) };
            columns.push(Arc::new((0..column.len()).map(cell).collect::<StringArray>()));
            fields.push(Field::new(field.name(), DataType::Utf8, true));
        } else {
            columns.push(Arc::clone(column));
            fields.push(field.as_ref().clone());
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &mut BufWriter<File>, text: &str) -> anyhow::Result<()> {
        Ok(file.write_all(text.as_bytes())?)
    }

    #[test]
    fn two_that_write_one_file_at_the_same_time_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        atomically(&path, |first| {
            write(first, "first")?;
            atomically(&path, |second| write(second, "second"))?;
            assert_eq!(std::fs::read_to_string(&path)?, "second");
            write(first, " and last")
        })
        .unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first and last");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");
    }
}
