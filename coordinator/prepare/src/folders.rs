//! Where the paths of a spec may lead. Whoever runs an experiment on their own machine may name any file; a service reads for
//! others, and only below the folders that its operator allowed.

use std::io;
use std::path::{Path, PathBuf};

/// Most files of a model's folder that are looked at.
const MAX_FILES: usize = 10_000;

/// Folders below which a spec's files may lie.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// As the system resolves them; none: anywhere.
    only: Option<Vec<PathBuf>>,
}

impl Folders {
    /// Anywhere.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Below these.
    ///
    /// # Errors
    /// Where one isn't a folder.
    pub fn only(folders: &[PathBuf]) -> Result<Self, (PathBuf, io::Error)> {
        let real = |f: &PathBuf| {
            let real = f.canonicalize().map_err(|e| (f.clone(), e))?;
            if real.is_dir() { Ok(real) } else { Err((f.clone(), io::ErrorKind::NotADirectory.into())) }
        };
        Ok(Self { only: Some(folders.iter().map(real).collect::<Result<_, _>>()?) })
    }

    /// Whether a path leads below one of them, links and `..` resolved. Of one that isn't there, what is there of it decides, so
    /// that the answer tells nothing of other folders.
    #[must_use]
    pub fn allow(&self, path: &Path) -> bool {
        let Some(only) = &self.only else { return true };
        let Ok(path) = std::path::absolute(path) else { return false };
        // `..` after a name that isn't there could not be resolved; with one that is, the system does it.
        let there = path.ancestors().find_map(|p| p.canonicalize().ok().map(|real| (p, real)));
        let Some((there, real)) = there else { return false };
        let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
        let plain = rest.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        plain && only.iter().any(|f| real.starts_with(f))
    }

    /// Refuses a model's folder with a link that leads out.
    pub(crate) fn allow_all(&self, folder: &Path) -> Result<(), String> {
        if self.only.is_none() || !folder.is_dir() {
            return Ok(());
        }
        let mut left = vec![folder.to_path_buf()];
        let mut seen = 0;
        while let Some(folder) = left.pop() {
            let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            for entry in entries.flatten() {
                seen += 1;
                if seen > MAX_FILES {
                    return Err(format!("the folder of the model holds more than {MAX_FILES} files"));
                }
                let path = entry.path();
                if !self.allow(&path) {
                    return Err(self.refusal(&path));
                }
                // Links to folders aren't followed: their target was checked, and nothing is read below it.
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    left.push(path);
                }
            }
        }
        Ok(())
    }

    /// What to say of a path that isn't allowed.
    pub(crate) fn refusal(&self, path: &Path) -> String {
        let all: Vec<String> = self.only.iter().flatten().map(|f| f.display().to_string()).collect();
        if all.is_empty() {
            return format!(
                "{} can't be read: this coordinator was given no folder that specs may read from; ask its operator for --allow DIR",
                path.display()
            );
        }
        format!(
            "{} leads out of the folders that this coordinator may read ({})",
            path.display(),
            all.join(", ")
        )
    }
}

/// Where relative paths of a spec are looked for, and where they may lead.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// The spec's folder.
    pub dir: &'a Path,
    /// Folders that may be read.
    pub folders: &'a Folders,
}

impl Base<'_> {
    /// Where a path of the spec lies: below the spec's folder, or else below the current one. The error says what is wrong with
    /// it, without what to do.
    pub(crate) fn resolve(&self, path: &str) -> Result<PathBuf, String> {
        let below = self.dir.join(path);
        let here = PathBuf::from(path);
        let mut refused = None;
        for place in [&below, &here] {
            if !self.folders.allow(place) {
                refused.get_or_insert(place);
            } else if place.exists() {
                return Ok(place.clone());
            }
        }
        // Relative to the current folder is a second guess: the first says more.
        match refused {
            Some(place) if *place == below => Err(self.folders.refusal(place)),
            _ => Err(format!("there is no {}", below.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn paths_lead_below_the_allowed_folders_only_whatever_their_form() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["in/deep", "out"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["in/a", "in/deep/b", "out/c"] {
            std::fs::write(at(file), "x").unwrap();
        }
        std::os::unix::fs::symlink(at("out/c"), at("in/link")).unwrap();
        std::os::unix::fs::symlink(at("out"), at("in/folder")).unwrap();
        std::os::unix::fs::symlink(at("in/a"), at("out/back")).unwrap();
        let folders = Folders::only(&[at("in")]).unwrap();
        let dir = at("in/deep");
        let base = Base { dir: &dir, folders: &folders };
        for (path, file) in
            [("b", "in/deep/b"), ("../a", "in/a"), ("../deep/../a", "in/a"), ("../../out/back", "in/a")]
        {
            assert_eq!(
                base.resolve(path).unwrap().canonicalize().unwrap(),
                at(file).canonicalize().unwrap(),
                "{path}"
            );
        }
        base.resolve(at("in/a").to_str().unwrap()).unwrap();
        for path in [
            "../../out/c",
            "../link",
            "../folder/c",
            "/etc/passwd",
            "../../none",
            "../folder/none",
            "none/../../../x",
        ] {
            let said = base.resolve(path).unwrap_err();
            assert!(said.contains("leads out"), "{path}: {said}");
        }
        assert!(base.resolve("none").unwrap_err().contains("there is no"), "inside, it may be said");
        assert!(folders.allow_all(&at("in/deep")).is_ok());
        assert!(
            folders.allow_all(&at("in")).unwrap_err().contains("leads out"),
            "a model's folder with a link"
        );
        let nothing = Folders::only(&[]).unwrap();
        assert!(Base { dir: &dir, folders: &nothing }.resolve("b").unwrap_err().contains("--allow"));
        assert!(Folders::any().allow(Path::new("/etc/passwd")));
        assert!(Folders::only(&[at("in/a")]).is_err());
    }
}
