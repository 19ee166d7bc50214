//! greater_than: years that must lie after another one, generated.

use super::Items;
use crate::tokenizer::Text;
use ablate_common::spec::TaskSpec;
use ablate_common::task::{Item, Scored};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// What lasts from one year to another.
const NOUNS: [&str; 40] = [
    "war",
    "siege",
    "voyage",
    "expedition",
    "reign",
    "dynasty",
    "drought",
    "famine",
    "plague",
    "alliance",
    "trial",
    "truce",
    "treaty",
    "campaign",
    "occupation",
    "rebellion",
    "revolt",
    "dispute",
    "feud",
    "marriage",
    "friendship",
    "partnership",
    "monopoly",
    "contract",
    "restoration",
    "construction",
    "excavation",
    "exhibition",
    "expansion",
    "migration",
    "pilgrimage",
    "tour",
    "exile",
    "imprisonment",
    "negotiation",
    "quarantine",
    "boycott",
    "strike",
    "blockade",
    "crusade",
];

/// The first two digits of every year.
const CENTURY: &str = "17";

/// How a tokenizer writes what follows the century.
enum Endings {
    /// A token for each of 00 to 99, by number.
    Two(Vec<u32>),
    /// A token for each digit.
    One(Vec<u32>),
}

fn prompt(noun: &str, start: u32) -> String {
    format!("The {noun} lasted from the year {CENTURY}{start:02} to the year {CENTURY}")
}

/// The one token that `more` adds to `text`, where it leaves the tokens of `text` as they are.
fn added(text: &Text, before: &str, more: &str) -> Option<u32> {
    let (bare, whole) = (text.bare(before).ok()?, text.bare(&format!("{before}{more}")).ok()?);
    match whole.strip_prefix(bare.as_slice())? {
        [one] => Some(*one),
        _ => None,
    }
}

impl Endings {
    fn of(text: &Text) -> Result<Self, String> {
        let before = prompt(NOUNS[0], 0);
        let two: Option<Vec<u32>> = (0..100).map(|n| text.spelled(&format!("{n:02}"))).collect();
        if let Some(two) = two {
            // A famous year may be one token; a century that most endings follow on is not.
            let split = (0..100)
                .zip(&two)
                .filter(|(n, token)| added(text, &before, &format!("{n:02}")) == Some(**token));
            if split.count() >= 50 {
                return Ok(Self::Two(two));
            }
        }
        let one: Option<Vec<u32>> = (0..10)
            .map(|n| {
                let digit = added(text, &before, &n.to_string())?;
                // The second digit must be another token, or the first one wouldn't stand for its decade.
                added(text, &format!("{before}{n}"), "5")?;
                Some(digit)
            })
            .collect();
        one.map(Self::One).ok_or_else(|| {
            format!(
                "the tokenizer splits years neither as {CENTURY}|43 nor digit by digit, so that greater_than can't be scored; use a logit_difference task"
            )
        })
    }

    /// Start years, as numbers below 100, that have greater and not greater endings.
    fn starts(&self, text: &Text) -> Vec<u32> {
        match self {
            // The start must be written as its end will be.
            Self::Two(tokens) => (2..99)
                .filter(|&n| {
                    let before = format!("The war lasted from the year {CENTURY}");
                    added(text, &before, &format!("{n:02}")) == Some(tokens[n as usize])
                })
                .collect(),
            // Of a year that ends in 9, no later one lies in the same decade: the digit decides.
            Self::One(_) => (0..9).map(|d| 10 * d + 9).collect(),
        }
    }

    /// The scored tokens with 1 where they make the year greater than `start`, else 0.
    fn scored(&self, start: u32) -> Vec<(u32, u32)> {
        let (tokens, limit) = match self {
            Self::Two(tokens) => (tokens, start),
            Self::One(tokens) => (tokens, start / 10),
        };
        (0u32..).zip(tokens).map(|(n, &token)| (token, u32::from(n > limit))).collect()
    }
}

/// The counterfactual of each item of [`greater_than`], bare: the same prompt with a start year that ends in 01,
/// which says nothing about the end.
pub fn counterfactuals(task: &TaskSpec, text: &Text, seed: u64) -> Result<Vec<Vec<u32>>, String> {
    let one = |(noun, start): (&str, u32)| {
        let (wanted, tokens) = (text.bare(&prompt(noun, start))?.len(), text.bare(&prompt(noun, 1))?);
        if tokens.len() != wanted {
            return Err(format!(
                "the tokenizer doesn't split the year {CENTURY}01 as {CENTURY}{start:02}, so that there is no counterfactual; use donors = \"seeded\""
            ));
        }
        Ok(tokens)
    };
    drawn(task, &Endings::of(text)?, text, seed)?.into_iter().map(one).collect()
}

/// Seeded (noun, start year) of each item.
fn drawn(
    task: &TaskSpec,
    endings: &Endings,
    text: &Text,
    seed: u64,
) -> Result<Vec<(&'static str, u32)>, String> {
    let starts = endings.starts(text);
    let mut all: Vec<(&'static str, u32)> =
        NOUNS.iter().flat_map(|noun| starts.iter().map(move |&start| (*noun, start))).collect();
    let count = task.examples.unwrap_or(64);
    if all.len() < count as usize {
        return Err(format!("only {} different prompts can be made; lower examples", all.len()));
    }
    all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    all.truncate(count as usize);
    Ok(all)
}

/// Seeded prompts that end before the last digits of a year.
pub fn greater_than(task: &TaskSpec, text: &Text, seed: u64) -> Result<Items, String> {
    let endings = Endings::of(text)?;
    let all = drawn(task, &endings, text, seed)?;
    let mut items = Vec::with_capacity(all.len());
    for (noun, start) in all {
        let prompt = prompt(noun, start);
        let tokens = text.bare(&prompt)?;
        if tokens.len() > text.room(task.max_tokens) {
            return Err(format!(
                "max_tokens = {} is too short for the prompt {prompt:?}, which needs {}",
                task.max_tokens,
                text.wrap(&tokens).len()
            ));
        }
        let position = (text.prefix.len() + tokens.len() - 1) as u32;
        let scored = endings
            .scored(start)
            .into_iter()
            .map(|(target, foil)| Scored { position, target, foil })
            .collect();
        items.push(Item { tokens: text.wrap(&tokens), scored, ..Item::default() });
    }
    let count = items.len() as u32;
    Ok((items, (0..count).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ablate_common::metric::Metric;
    use ablate_common::model::{GgufTokenizer, TokenizerSource};
    use ablate_common::task::TaskKind;

    /// A byte-level tokenizer of letters and digits, with tokens of two digits where `pairs`.
    fn text(pre: &str, pairs: bool) -> Text {
        let mut tokens: Vec<String> = ('a'..='z').chain('0'..='9').map(String::from).collect();
        tokens.extend(["T", "Ġ"].map(String::from));
        let mut merges = Vec::new();
        if pairs {
            // The century's merge comes first, so that it is what a year is split at.
            let all = (0..100).map(|n| (17 + n) % 100).map(|n| (n / 10, n % 10));
            for (a, b) in all {
                tokens.push(format!("{a}{b}"));
                merges.push(format!("{a} {b}"));
            }
        }
        let g = GgufTokenizer {
            model: "gpt2".into(),
            pre: pre.into(),
            types: vec![1; tokens.len()],
            tokens,
            merges,
            ..Default::default()
        };
        Text::new(&TokenizerSource::Gguf(Box::new(g))).unwrap()
    }

    fn task(examples: u32) -> TaskSpec {
        TaskSpec {
            name: "y".into(),
            kind: TaskKind::GreaterThan,
            data: None,
            examples: Some(examples),
            max_tokens: 128,
            metric: Metric::ProbDiff,
            sha256: None,
            probe: None,
            train: None,
        }
    }

    /// (the start's digits, scored digits that are greater, those that aren't) of every item.
    fn shown(text: &Text, items: &[Item]) -> Vec<(String, Vec<String>, Vec<String>)> {
        let of = |item: &Item, sign| {
            let tokens = item.scored.iter().filter(|s| s.foil == sign);
            tokens.map(|s| text.show(s.target)).collect::<Vec<_>>()
        };
        items
            .iter()
            .map(|i| {
                let all: String = i.tokens.iter().map(|&t| text.show(t)).collect();
                assert!(all.ends_with(" to the year 17") && all.starts_with("The "), "{all}");
                assert!(i.scored.iter().all(|s| s.position as usize == i.tokens.len() - 1));
                let at = all.find("17").unwrap() + 2;
                (all[at..at + 2].to_owned(), of(i, 1), of(i, 0))
            })
            .collect()
    }

    #[test]
    fn single_digits_are_scored_by_decade_from_years_that_end_in_9() {
        let text = text("smollm", false);
        let (items, clusters) = greater_than(&task(360), &text, 1).unwrap();
        assert_eq!(clusters, (0..360).collect::<Vec<_>>());
        for (start, up, down) in shown(&text, &items) {
            assert!(start.ends_with('9'), "{start}");
            let digits: Vec<String> = (0..10).map(|d| d.to_string()).collect();
            let split = start[..1].parse::<usize>().unwrap() + 1;
            assert_eq!((up.as_slice(), down.as_slice()), (&digits[split..], &digits[..split]));
            assert!(!up.is_empty());
        }
        assert_eq!(items, greater_than(&task(360), &text, 1).unwrap().0);
        assert_ne!(items, greater_than(&task(360), &text, 2).unwrap().0);
        assert!(greater_than(&task(361), &text, 1).unwrap_err().contains("only 360 different prompts"));
        let short = TaskSpec { max_tokens: 20, ..task(1) };
        assert!(greater_than(&short, &text, 1).unwrap_err().contains("max_tokens = 20 is too short"));
    }

    #[test]
    fn pairs_of_digits_are_scored_by_year() {
        let text = text("gpt-2", true);
        let (items, _) = greater_than(&task(300), &text, 1).unwrap();
        for (start, up, down) in shown(&text, &items) {
            let split = start.parse::<usize>().unwrap() + 1;
            assert!((3..100).contains(&split), "{start}");
            let all: Vec<String> = (0..100).map(|n| format!("{n:02}")).collect();
            assert_eq!((up.as_slice(), down.as_slice()), (&all[split..], &all[..split]));
        }
    }
}
