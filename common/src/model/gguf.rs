//! A small reader of GGUF headers (versions 2 and 3). Every size is checked against the file's length
//! before it is used; no tensor data is read.

use super::tensors::TensorType;
use std::collections::BTreeMap;
use std::io::Read;

/// Longest metadata that is read, in bytes: a vocabulary takes a few megabytes.
const MAX_HEADER: u64 = 1 << 28;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any integer type.
    Int(i128),
    /// f32 (widened) or f64.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// String.
    Str(String),
    /// Array of strings.
    Strings(Vec<String>),
    /// Array of integers or booleans.
    Ints(Vec<i64>),
    /// An array that nothing here needs: its length only.
    Skipped(u64),
}

/// One tensor's line in the header.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Name.
    pub name: String,
    /// Row-major, outermost dimension first.
    pub shape: Vec<u64>,
    /// GGML's number of the type.
    pub type_id: u32,
    /// From the start of the data section.
    pub offset: u64,
}

/// A parsed header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Metadata.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors in the file's order.
    pub tensors: Vec<Info>,
    /// Where tensor data begins.
    pub data: u64,
}

impl Header {
    /// An unsigned integer; `None` where it is missing, an error where it is something else.
    pub fn uint(&self, key: &str) -> Result<Option<u32>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Int(i)) => {
                u32::try_from(*i).map(Some).map_err(|_| format!("{key} = {i} is out of range"))
            }
            Some(other) => Err(format!("{key} should be an integer, but is {}", kind(other))),
        }
    }

    /// A number.
    pub fn float(&self, key: &str) -> Result<Option<f64>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x)),
            Some(other) => Err(format!("{key} should be a float, but is {}", kind(other))),
        }
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Str(s)) => Ok(Some(s)),
            Some(other) => Err(format!("{key} should be a string, but is {}", kind(other))),
        }
    }

    /// A boolean.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(format!("{key} should be a boolean, but is {}", kind(other))),
        }
    }
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::Int(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Bool(_) => "a boolean",
        Value::Str(_) => "a string",
        Value::Strings(_) | Value::Ints(_) | Value::Skipped(_) => "an array",
    }
}

/// Reads the header of a file of `len` bytes.
///
/// # Errors
/// Where the bytes aren't a GGUF header or it promises more than the file holds.
pub fn read_header(source: impl Read, len: u64) -> Result<Header, String> {
    let mut r = Reader { source, at: 0, end: len, read: len.min(MAX_HEADER) };
    let magic: [u8; 4] = r.array()?;
    if &magic != b"GGUF" {
        return Err("it doesn't begin with GGUF, so it is no .gguf file".into());
    }
    let version = r.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("GGUF version {version} can't be read (2 and 3 can)"));
    }
    let n_tensors = r.count(8 + 4 + 4 + 8, "tensors")?;
    let n_keys = r.count(8 + 4 + 1, "metadata keys")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..n_keys {
        let key = r.string()?;
        let id = r.u32()?;
        let value = r.value(id).map_err(|e| format!("metadata {key:?}: {e}"))?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("metadata {key:?} is there twice"));
        }
    }
    let mut tensors = Vec::new();
    for _ in 0..n_tensors {
        let name = r.string()?;
        let dims = r.u32()?;
        if dims > 4 {
            return Err(format!("tensor {name:?} has {dims} dimensions (at most 4)"));
        }
        let mut shape = (0..dims).map(|_| r.u64()).collect::<Result<Vec<_>, _>>()?;
        shape.reverse();
        tensors.push(Info { name, shape, type_id: r.u32()?, offset: r.u64()? });
    }
    let align = match metadata.get("general.alignment") {
        None => 32,
        Some(Value::Int(a)) => u64::try_from(*a)
            .ok()
            .filter(|a| a.is_power_of_two() && *a <= 1 << 20)
            .ok_or("bad general.alignment")?,
        Some(_) => return Err("general.alignment should be an integer".into()),
    };
    Ok(Header { metadata, tensors, data: r.at.next_multiple_of(align) })
}

/// The format with GGML's number `id`.
///
/// # Errors
/// With the format's name, where it can't be read.
pub fn tensor_type(id: u32) -> Result<TensorType, String> {
    Ok(match id {
        0 => TensorType::F32,
        1 => TensorType::F16,
        2 => TensorType::Q4_0,
        3 => TensorType::Q4_1,
        6 => TensorType::Q5_0,
        7 => TensorType::Q5_1,
        8 => TensorType::Q8_0,
        10 => TensorType::Q2K,
        11 => TensorType::Q3K,
        12 => TensorType::Q4K,
        13 => TensorType::Q5K,
        14 => TensorType::Q6K,
        15 => TensorType::Q8K,
        28 => TensorType::F64,
        30 => TensorType::BF16,
        other => return Err(unsupported_name(other)),
    })
}

fn unsupported_name(id: u32) -> String {
    let name = match id {
        9 => "Q8_1",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("number {id}"),
    };
    name.into()
}

/// Reads forward, never past `read`, which is at most the file's length `end`.
struct Reader<R> {
    source: R,
    at: u64,
    end: u64,
    read: u64,
}

impl<R: Read> Reader<R> {
    fn take(&mut self, n: u64) -> Result<(), String> {
        let after = self.at.checked_add(n).ok_or("a size overflows")?;
        if after > self.end {
            return Err(format!("it is truncated: {after} bytes are needed, the file has {}", self.end));
        }
        if after > self.read {
            return Err(format!("its header is longer than {MAX_HEADER} bytes"));
        }
        self.at = after;
        Ok(())
    }

    fn bytes(&mut self, n: u64) -> Result<Vec<u8>, String> {
        self.take(n)?;
        let mut out = Vec::new();
        let got = self.source.by_ref().take(n).read_to_end(&mut out).map_err(|e| e.to_string())?;
        if got as u64 == n { Ok(out) } else { Err("it is truncated".into()) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N as u64)?;
        let mut out = [0; N];
        self.source.read_exact(&mut out).map_err(|e| format!("it is truncated: {e}"))?;
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things of at least `each` bytes, which the rest of the file must be able to hold.
    fn count(&mut self, each: u64, what: &str) -> Result<u64, String> {
        let n = self.u64()?;
        if n > (self.end - self.at) / each {
            return Err(format!("it promises {n} {what}, more than the file can hold: damaged or truncated"));
        }
        Ok(n)
    }

    fn string(&mut self) -> Result<String, String> {
        let n = self.u64()?;
        String::from_utf8(self.bytes(n)?).map_err(|_| "a string isn't UTF-8".into())
    }

    /// An integer or boolean of type `id`; `None` for any other type.
    fn int(&mut self, id: u32) -> Result<Option<i128>, String> {
        Ok(Some(match id {
            0 | 7 => self.array::<1>()?[0].into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => u32::from_le_bytes(self.array()?).into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            10 => u64::from_le_bytes(self.array()?).into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            _ => return Ok(None),
        }))
    }

    fn value(&mut self, id: u32) -> Result<Value, String> {
        if let Some(i) = self.int(id)? {
            return Ok(if id == 7 { Value::Bool(i != 0) } else { Value::Int(i) });
        }
        Ok(match id {
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            8 => Value::Str(self.string()?),
            9 => self.list()?,
            other => return Err(format!("type {other} is not known")),
        })
    }

    fn list(&mut self) -> Result<Value, String> {
        match self.u32()? {
            8 => {
                let n = self.count(8, "strings")?;
                Ok(Value::Strings((0..n).map(|_| self.string()).collect::<Result<_, _>>()?))
            }
            id @ (6 | 12) => {
                let size = if id == 6 { 4 } else { 8 };
                let n = self.count(size, "numbers")?;
                for _ in 0..n {
                    let _ = if id == 6 { self.u32().map(u64::from)? } else { self.u64()? };
                }
                Ok(Value::Skipped(n))
            }
            9 => Err("arrays of arrays can't be read".into()),
            id => {
                let n = self.count(1, "numbers")?;
                let mut out = Vec::new();
                for _ in 0..n {
                    let i = self.int(id)?.ok_or_else(|| format!("array type {id} is not known"))?;
                    out.push(i64::try_from(i).map_err(|_| "an array's number is out of range")?);
                }
                Ok(Value::Ints(out))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(s: &str) -> Vec<u8> {
        [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
    }

    fn sample() -> Vec<u8> {
        let mut b = b"GGUF".to_vec();
        b.extend(3u32.to_le_bytes());
        b.extend(1u64.to_le_bytes());
        b.extend(3u64.to_le_bytes());
        b.extend([text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("llama")].concat());
        b.extend([text("eps"), 6u32.to_le_bytes().to_vec(), 1e-5f32.to_le_bytes().to_vec()].concat());
        b.extend([text("tokens"), 9u32.to_le_bytes().to_vec(), 8u32.to_le_bytes().to_vec()].concat());
        b.extend([2u64.to_le_bytes().to_vec(), text("a"), text("bc")].concat());
        b.extend([text("t.weight"), 2u32.to_le_bytes().to_vec(), 4u64.to_le_bytes().to_vec()].concat());
        b.extend(
            [2u64.to_le_bytes().to_vec(), 0u32.to_le_bytes().to_vec(), 0u64.to_le_bytes().to_vec()].concat(),
        );
        b
    }

    #[test]
    fn reads_keys_and_tensors() {
        let b = sample();
        let h = read_header(&b[..], b.len() as u64).unwrap();
        assert_eq!(h.text("general.architecture").unwrap(), Some("llama"));
        assert_eq!(h.float("eps").unwrap(), Some(f64::from(1e-5f32)));
        assert_eq!(h.metadata["tokens"], Value::Strings(vec!["a".into(), "bc".into()]));
        assert_eq!(h.tensors[0].shape, [2, 4]);
        assert_eq!(h.data % 32, 0);
        assert!(h.uint("eps").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_header(&bytes[..], bytes.len() as u64);
            let with_magic = [&b"GGUF\x03\0\0\0"[..], &bytes].concat();
            let _ = read_header(&with_magic[..], with_magic.len() as u64);
        }

        #[test]
        fn a_damaged_header_never_panics(at in 0usize..200, value: u8, cut in 0usize..300) {
            let mut b = sample();
            let n = b.len();
            b[at % n] = value;
            b.truncate(cut.min(n));
            if let Ok(h) = read_header(&b[..], b.len() as u64) {
                for t in &h.tensors {
                    if let Ok(ty) = tensor_type(t.type_id) {
                        let _ = ty.bytes(&t.shape);
                    }
                }
            }
        }

        #[test]
        fn a_truncated_header_is_an_error(cut in 0usize..1000) {
            let b = sample();
            let n = cut % b.len();
            prop_assert!(read_header(&b[..n], n as u64).is_err());
        }
    }
}
