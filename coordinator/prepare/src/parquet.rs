//! Parquet files as records: each row becomes the line of JSON that a .jsonl file would have in its place, and everything else
//! reads it as such.

use arrow_json::LineDelimitedWriter;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Most bytes that a file's columns may have once they are unpacked.
const MAX_BYTES: i64 = 4 << 30;

/// The rows as lines of JSON; a null is a key that isn't there.
///
/// # Errors
/// Where it isn't a Parquet file, is broken, or holds too much.
pub fn lines(file: Vec<u8>) -> Result<String, String> {
    let broken = |e: &dyn std::fmt::Display| format!("it can't be read as Parquet: {e}");
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).map_err(|e| broken(&e))?;
    let bytes: i64 =
        reader.metadata().row_groups().iter().map(|g| g.total_byte_size()).fold(0, i64::saturating_add);
    if !(0..=MAX_BYTES).contains(&bytes) {
        return Err(format!(
            "its columns say that they unpack to {bytes} bytes, and {MAX_BYTES} are the most"
        ));
    }
    let mut writer = LineDelimitedWriter::new(Vec::new());
    for batch in reader.build().map_err(|e| broken(&e))? {
        writer.write(&batch.map_err(|e| broken(&e))?).map_err(|e| broken(&e))?;
    }
    writer.finish().map_err(|e| broken(&e))?;
    String::from_utf8(writer.into_inner()).map_err(|e| broken(&e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::lines;
    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use std::sync::Arc;

    #[test]
    fn rows_are_the_lines_that_a_jsonl_file_would_have() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a \"b\"\nc"), Some("é")]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None]));
        let batch = RecordBatch::try_from_iter([("text", text), ("document", number)]).unwrap();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let made = lines(file.clone()).unwrap();
        let rows: Vec<serde_json::Value> = made.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(
            rows,
            [serde_json::json!({"text": "a \"b\"\nc", "document": 3}), serde_json::json!({"text": "é"})]
        );
        for bad in [&b"PAR1"[..], &file[..file.len() / 2], b"{\"text\": 1}"] {
            assert!(lines(bad.to_vec()).unwrap_err().contains("can't be read as Parquet"));
        }
    }
}
