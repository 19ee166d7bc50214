//! Where in a spec a complaint belongs: the parser knows lines, what comes after it knows only sections
//! and keys.

/// Line (from 1) that `complaint` is about: it begins with `model:`, `task "NAME":` or `[[SECTION]] N:` (the
/// Nth, from 1), and may name a key of that section.
pub fn line_of(spec: &str, complaint: &str) -> Option<usize> {
    let sections = sections(spec);
    let section = if complaint.starts_with("model:") {
        sections.iter().find(|s| s.header == "[model]")?
    } else if let Some((header, rest)) = complaint.strip_prefix("[[").and_then(|r| r.split_once("]] ")) {
        let number: usize = rest.split(':').next()?.parse().ok()?;
        let same = |s: &&Section<'_>| s.header.trim_matches(['[', ']']) == header;
        sections.iter().filter(same).nth(number.checked_sub(1)?)?
    } else {
        let rest = complaint.strip_prefix("task \"")?;
        let name = &rest[..rest.find('"')?];
        sections.iter().find(|s| s.header == "[[task]]" && s.value("name") == Some(name))?
    };
    // What to do comes last in a complaint, and names the key.
    let key = section.keys.iter().filter_map(|k| last_word(complaint, k.0).map(|at| (at, k.2))).max();
    Some(key.map_or(section.line, |(_, line)| line))
}

struct Section<'a> {
    header: &'a str,
    line: usize,
    /// (key, value, line)
    keys: Vec<(&'a str, &'a str, usize)>,
}

impl<'a> Section<'a> {
    fn value(&self, key: &str) -> Option<&'a str> {
        self.keys.iter().find(|k| k.0 == key).map(|k| k.1)
    }
}

fn sections(spec: &str) -> Vec<Section<'_>> {
    let mut all: Vec<Section<'_>> = Vec::new();
    for (i, line) in spec.lines().enumerate() {
        let text = line.split(" #").next().unwrap_or_default().trim();
        let inner = text.trim_matches(['[', ']']);
        // The keys of [ablation.sets] belong to the ablation before it.
        if text.starts_with('[') && inner.split_once('.').is_some_and(|(table, _)| table == "ablation") {
            continue;
        }
        if text.starts_with('[') && text.ends_with(']') && !inner.contains(['"', ',']) {
            all.push(Section { header: text, line: i + 1, keys: Vec::new() });
        } else if let (Some(section), Some((key, value))) = (all.last_mut(), text.split_once('=')) {
            section.keys.push((key.trim(), value.trim().trim_matches(['"', '\'']), i + 1));
        }
    }
    all
}

/// Where `word` stands last in `text` as a word of its own.
fn last_word(text: &str, word: &str) -> Option<usize> {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '/' || c == '.';
    text.rmatch_indices(word)
        .find(|(at, _)| {
            !text[..*at].ends_with(part_of_word)
                && !text[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '/')
        })
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::line_of;

    const SPEC: &str = "name = \"x\"\n\n[model]\nsource = \"m\" # here\n\n[[task]]\nname = \"a\"\n[[task]]\nname = \"b\"\ndata = \"d.jsonl\"\nmax_tokens = 4000\n";

    #[test]
    fn complaints_are_placed_at_the_key_or_else_the_section() {
        assert_eq!(line_of(SPEC, "model: there is no m; correct source in [model]"), Some(4));
        assert_eq!(line_of(SPEC, "model: truncated"), Some(3));
        assert_eq!(line_of(SPEC, "task \"b\": there is no data/d.jsonl; correct data"), Some(10));
        assert_eq!(line_of(SPEC, "task \"b\": max_tokens = 4000 is above the model's context"), Some(11));
        assert_eq!(line_of(SPEC, "task \"a\": empty"), Some(6));
        assert_eq!(line_of(SPEC, "task \"c\": empty"), None);
        assert_eq!(line_of(SPEC, "something else"), None);
        let sets = "[[ablation]]\nmethod = \"zero\"\n[[ablation]]\nunit = \"set\"\n[ablation.sets]\nfew = [\n\"L0.H0\",\n]\nmore = [\"L9.H0\"]\n[[sweep]]\nkind = \"single\"\nstreams = [\"x\"]\n";
        assert_eq!(line_of(sets, "[[ablation]] 2: set \"more\" selects no head; correct more"), Some(9));
        assert_eq!(line_of(sets, "[[ablation]] 1: wrong"), Some(1));
        assert_eq!(line_of(sets, "[[sweep]] 1: stream \"x\" selects no head; correct streams"), Some(12));
        assert_eq!(line_of(sets, "[[sweep]] 2: wrong"), None);
    }
}
