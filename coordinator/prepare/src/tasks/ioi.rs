//! ioi: indirect-object identification, generated.

use super::{Items, prompts::prompt_item};
use crate::tokenizer::Text;
use ablate_common::spec::TaskSpec;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;

/// A and B are the first and second name, S the one that is repeated; every name follows a space.
const TEMPLATES: [&str; 6] = [
    "When {A} and {B} went to the {place}, {S} gave a {object} to",
    "Then, {A} and {B} went to the {place}. {S} gave a {object} to",
    "After {A} and {B} left the {place}, {S} handed a {object} to",
    "While {A} and {B} were working at the {place}, {S} gave a {object} to",
    "Friends {A} and {B} found a {object} at the {place}. {S} gave it to",
    "Yesterday {A} and {B} had lunch at the {place}. Afterwards, {S} brought a {object} to",
];

const NAMES: [&str; 40] = [
    "Mary", "John", "Tom", "James", "Dan", "Martin", "Amy", "Anna", "Peter", "Paul", "Mark", "Sarah", "Kate",
    "Laura", "David", "Michael", "Robert", "William", "Richard", "Thomas", "Charles", "George", "Henry",
    "Jack", "Alice", "Emma", "Jane", "Lisa", "Susan", "Karen", "Emily", "Sam", "Ben", "Adam", "Max", "Alex",
    "Simon", "Kevin", "Brian", "Rachel",
];

const PLACES: [&str; 8] =
    ["store", "garden", "restaurant", "school", "hospital", "office", "house", "station"];

const OBJECTS: [&str; 8] = ["ring", "letter", "book", "basketball", "computer", "necklace", "drink", "snack"];

/// The names that are single tokens, with these.
pub fn names(text: &Text) -> Vec<(&'static str, u32)> {
    NAMES.iter().filter_map(|n| Some((*n, text.single(&format!(" {n}"))?))).collect()
}

/// Seeded prompts that end before the indirect object; ABBA and BABA orders alternate.
pub fn ioi(task: &TaskSpec, text: &Text, seed: u64) -> Result<Items, String> {
    let names = names(text);
    if names.len() < 4 {
        return Err(format!(
            "only {} of {} names are single tokens of this tokenizer, too few for ioi; use a logit_difference task",
            names.len(),
            NAMES.len()
        ));
    }
    let count = task.examples.unwrap_or(64);
    // Of each template, place, object and ordered pair of names one in either order, which alternate.
    let most = 2 * TEMPLATES.len() * PLACES.len() * OBJECTS.len() * names.len() * (names.len() - 1);
    if count as usize > most {
        return Err(format!("only {most} different prompts can be made; lower examples"));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut items, mut seen, mut tries) = (Vec::new(), HashSet::new(), 0u64);
    while items.len() < count as usize {
        tries += 1;
        if tries > 20 * u64::from(count) + 1000 {
            return Err(format!("only {} different prompts can be made; lower examples", items.len()));
        }
        let pick =
            |rng: &mut ChaCha8Rng, list: &[&'static str]| list.choose(rng).copied().unwrap_or_default();
        let (template, place, object) =
            (pick(&mut rng, &TEMPLATES), pick(&mut rng, &PLACES), pick(&mut rng, &OBJECTS));
        let two: Vec<(&str, u32)> = names.choose_multiple(&mut rng, 2).copied().collect();
        let [io, subject] = two.as_slice() else { return Err("two names could not be chosen".into()) };
        // ABBA names the indirect object first, BABA the subject.
        let (a, b) = if items.len() % 2 == 0 { (io.0, subject.0) } else { (subject.0, io.0) };
        let prompt = template
            .replace("{A}", a)
            .replace("{B}", b)
            .replace("{S}", subject.0)
            .replace("{place}", place)
            .replace("{object}", object);
        // Before the costly part, as most draws of a large set repeat one.
        if seen.contains(&prompt) {
            continue;
        }
        let tokens = text.bare(&prompt)?;
        if tokens.len() > text.room(task.max_tokens) {
            return Err(format!(
                "max_tokens = {} is too short for the prompt {prompt:?}, which needs {}",
                task.max_tokens,
                text.wrap(&tokens).len()
            ));
        }
        seen.insert(prompt);
        let held = |name: u32| tokens.iter().filter(|&&t| t == name).count();
        if (held(io.1), held(subject.1)) != (1, 2) {
            return Err("the tokenizer doesn't keep names as single tokens within a prompt; use a logit_difference task".into());
        }
        items.push(prompt_item(text, &tokens, io.1, subject.1));
    }
    Ok((items, (0..count).collect()))
}
