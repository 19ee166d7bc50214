//! What $ABLATE_LOG may say. The subscriber that the programs use takes any word for the name of a module, so that a
//! misspelt level would silence the log without a word.

/// The variable.
pub const VARIABLE: &str = "ABLATE_LOG";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The filter in $ABLATE_LOG; none where it isn't set, or empty.
///
/// # Errors
/// Where it isn't one: what is wrong, and what it may be.
pub fn filter() -> Result<Option<String>, String> {
    match std::env::var(VARIABLE) {
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("${VARIABLE} isn't text; {}", accepted())),
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => checked(&text).map(|()| Some(text)),
    }
}

/// Whether a filter is a level, or MODULE=LEVEL, or several with commas.
fn checked(text: &str) -> Result<(), String> {
    let level = |l: &str| LEVELS.contains(&l.trim().to_ascii_lowercase().as_str());
    let module =
        |m: &str| !m.is_empty() && m.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let fits = |part: &str| match part.split_once('=') {
        Some((name, l)) => module(name.trim()) && level(l),
        None => level(part),
    };
    match text.split(',').find(|p| !fits(p)) {
        Some(part) => Err(format!("${VARIABLE} = {text:?}: {:?} is no level; {}", part.trim(), accepted())),
        None => Ok(()),
    }
}

fn accepted() -> String {
    format!(
        "give one of {}, or by module: ablate_worker::client=debug, several with commas",
        LEVELS.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn levels_and_modules_are_taken_and_other_words_refused() {
        for good in ["info", "OFF", "warn,ablate_worker::client=debug", "a=trace, b=error"] {
            assert_eq!(checked(good), Ok(()), "{good}");
        }
        for bad in ["loud", "info,loud", "ablate_worker", "ablate_worker=loud", "=info", "info,,debug"] {
            let said = checked(bad).err().unwrap_or_default();
            assert!(said.contains("off, error, warn, info, debug, trace"), "{bad}: {said}");
        }
    }
}
