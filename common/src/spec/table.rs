//! Reading TOML tables with the line of everything that is wrong.

use super::Error;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Text and name of the file that is being read.
#[derive(Clone, Copy)]
pub struct Source<'s> {
    /// The whole text.
    pub text: &'s str,
    /// Its name in messages.
    pub origin: &'s str,
}

impl Source<'_> {
    /// An error at a byte of the text.
    pub fn error(&self, at: usize, what: impl Into<String>) -> Error {
        let line = 1 + self.text.bytes().take(at).filter(|&b| b == b'\n').count();
        Error { origin: self.origin.to_owned(), line, what: what.into() }
    }
}

/// One table of the file.
#[derive(Clone, Copy)]
pub struct Table<'s> {
    source: Source<'s>,
    /// How messages call it.
    pub name: &'static str,
    at: usize,
    entries: &'s DeTable<'s>,
}

impl<'s> Table<'s> {
    /// The table `entries`, called `name`, that begins at byte `at`.
    pub fn new(source: Source<'s>, name: &'static str, at: usize, entries: &'s DeTable<'s>) -> Self {
        Self { source, name, at, entries }
    }

    /// An error about the table as a whole.
    pub fn error(&self, what: impl Into<String>) -> Error {
        self.source.error(self.at, what)
    }

    /// Refuses keys that are neither `known` nor in the contract (`later`).
    pub fn only(&self, known: &[&str], later: &[&str]) -> Result<(), Error> {
        let mut keys: Vec<&Spanned<DeString<'_>>> = self.entries.keys().collect();
        keys.sort_by_key(|k| k.span().start);
        for key in keys {
            let name: &str = key.get_ref();
            let at = key.span().start;
            if later.contains(&name) {
                return Err(self
                    .source
                    .error(at, format!("{name} is in the contract but isn't built yet; leave it out")));
            }
            if !known.contains(&name) {
                let what = match elsewhere(name, known) {
                    Some(table) => {
                        format!(
                            "unknown key \"{name}\" in {}; it is a key of {table} (known here: {})",
                            self.name,
                            known.join(", ")
                        )
                    }
                    None => format!("unknown key \"{name}\" in {}{}", self.name, hint(name, known)),
                };
                return Err(self.source.error(at, what));
            }
        }
        Ok(())
    }

    /// The value of `key`.
    pub fn get(&self, key: &'static str) -> Option<Value<'s>> {
        let value = self.entries.get(key)?;
        Some(Value { source: self.source, key, value })
    }

    /// The value of `key`, which must be there.
    pub fn need(&self, key: &'static str, example: &str) -> Result<Value<'s>, Error> {
        self.get(key)
            .ok_or_else(|| self.error(format!("{} needs {key}, for example {key} = {example}", self.name)))
    }

    /// The tables under `key`: one `[key]` or several `[[key]]`.
    pub fn tables(&self, key: &'static str, name: &'static str) -> Result<Vec<Table<'s>>, Error> {
        let Some(v) = self.get(key) else { return Ok(Vec::new()) };
        let one = |v: &'s Spanned<DeValue<'s>>| match v.get_ref() {
            DeValue::Table(entries) => Ok(Table::new(self.source, name, v.span().start, entries)),
            other => Err(self.source.error(
                v.span().start,
                format!("{key} should be a table, {name}, but its type is {}", other.type_str()),
            )),
        };
        match v.value.get_ref() {
            DeValue::Array(list) => list.iter().map(one).collect(),
            _ => Ok(vec![one(v.value)?]),
        }
    }
}

/// Keys of a spec by table, those alone that one table has.
const ONLY_IN: [(&str, &[&str]); 5] = [
    ("the spec itself, before its first table", &["seed", "model"]),
    ("[model]", &["source", "dtype"]),
    ("[[task]]", &["data", "examples", "max_tokens", "metric", "probe", "train"]),
    ("[ablation]", &["method", "pool", "scale", "donors", "unit", "sets", "reference"]),
    (
        "[[sweep]]",
        &[
            "tasks",
            "streams",
            "strategy",
            "groups",
            "third_order",
            "base",
            "fraction",
            "objective",
            "split",
            "orders",
            "random_orders",
        ],
    ),
];

/// The table that a key belongs to, where it is none of this one's.
fn elsewhere(name: &str, known: &[&str]) -> Option<&'static str> {
    let table = ONLY_IN.iter().find(|(_, keys)| keys.contains(&name))?;
    // A sweep of another kind has other keys, and what is all but a key of this table is a slip: neither is elsewhere.
    let here = table.1.iter().any(|k| known.contains(k));
    let slip = known.iter().any(|k| strsim::normalized_damerau_levenshtein(name, k) >= 0.75);
    (!here && !slip).then_some(table.0)
}

/// "; did you mean …? (known: …)".
fn hint(name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|k| (strsim::normalized_damerau_levenshtein(name, k), *k))
        .filter(|c| c.0 >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let known = known.join(", ");
    match near {
        Some((_, k)) => format!("; did you mean \"{k}\"? (known: {known})"),
        None => format!(" (known: {known})"),
    }
}

/// One value of the file.
#[derive(Clone, Copy)]
pub struct Value<'s> {
    source: Source<'s>,
    key: &'static str,
    value: &'s Spanned<DeValue<'s>>,
}

impl<'s> Value<'s> {
    /// An error about this value.
    pub fn error(&self, what: impl Into<String>) -> Error {
        self.source.error(self.value.span().start, what)
    }

    fn wrong(&self, wanted: &str) -> Error {
        self.error(format!(
            "{} should be {wanted}, but its type is {}",
            self.key,
            self.value.get_ref().type_str()
        ))
    }

    /// A string.
    pub fn text(&self) -> Result<&'s str, Error> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong("a string in quotes"))
    }

    /// A finite number.
    pub fn number(&self) -> Result<f64, Error> {
        let n = match self.value.get_ref() {
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(|i| i as f64),
            DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
            _ => return Err(self.wrong("a number")),
        };
        n.filter(|n| n.is_finite())
            .ok_or_else(|| self.error(format!("{} should be a finite number", self.key)))
    }

    /// A whole number between `low` and `high`.
    pub fn whole(&self, low: u64, high: u64) -> Result<u64, Error> {
        let DeValue::Integer(i) = self.value.get_ref() else { return Err(self.wrong("a whole number")) };
        i128::from_str_radix(i.as_str(), i.radix())
            .ok()
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| (low..=high).contains(n))
            .ok_or_else(|| self.error(format!("{} = {} is outside {low} to {high}", self.key, i.as_str())))
    }

    /// [`Self::whole`] as `u32`.
    pub fn small(&self, low: u32, high: u32) -> Result<u32, Error> {
        Ok(self.whole(low.into(), high.into())? as u32)
    }

    /// true or false.
    pub fn truth(self) -> Result<bool, Error> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// A list of values.
    pub fn list(&self) -> Result<Vec<Value<'s>>, Error> {
        let list = self.value.get_ref().as_array().ok_or_else(|| self.wrong("a list in brackets"))?;
        Ok(list.iter().map(|value| Value { source: self.source, key: self.key, value }).collect())
    }

    /// The entries of a table, in the file's order.
    pub fn entries(&self) -> Result<Vec<(&'s str, Value<'s>)>, Error> {
        let table = self.value.get_ref().as_table().ok_or_else(|| self.wrong("a table"))?;
        let mut all: Vec<_> = table.iter().collect();
        all.sort_by_key(|(k, _)| k.span().start);
        let key = self.key;
        Ok(all
            .into_iter()
            .map(|(k, value)| (k.get_ref().as_ref(), Value { source: self.source, key, value }))
            .collect())
    }

    /// One of `known` by name; a name in `later` is refused as not built yet.
    pub fn choice<T: Copy>(&self, known: &[(&str, T)], later: &[&str]) -> Result<T, Error> {
        let name = self.text()?;
        if let Some((_, t)) = known.iter().find(|k| k.0 == name) {
            return Ok(*t);
        }
        if later.contains(&name) {
            return Err(self.later(name, &known.iter().map(|k| k.0).collect::<Vec<_>>()));
        }
        let names: Vec<&str> = known.iter().map(|k| k.0).collect();
        Err(self.error(format!("unknown {} \"{name}\"{}", self.key, hint(name, &names))))
    }

    /// The error for a value of the contract that isn't built yet.
    pub fn later(&self, name: &str, built: &[&str]) -> Error {
        let what = format!(
            "{} = \"{name}\" is in the contract but isn't built yet (built: {})",
            self.key,
            built.join(", ")
        );
        self.error(what)
    }
}
