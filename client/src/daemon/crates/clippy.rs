//! Files that clippy reads beyond what rustc does: the manifest of the folder that it runs in, which it notes as an input, and its settings.
//! Cargo runs it in the workspace's folder, so that neither need be the package's own. Blocks.

use std::path::{Path, PathBuf};

/// Looked for in a folder and those above it; where there is any, the search ends.
const SETTINGS: [&str; 2] = [".clippy.toml", "clippy.toml"];
/// Where the search begins, by the first of these variables that is set.
const BEGINS: [&str; 2] = ["CLIPPY_CONF_DIR", "CARGO_MANIFEST_DIR"];
const MANIFEST: &str = "Cargo.toml";

/// Those that are there, for a run in `cwd` with `env`.
pub fn files(cwd: &Path, env: &[(String, String)]) -> Vec<PathBuf> {
    let value = |name: &&str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let begin = BEGINS.iter().find_map(value).map_or_else(|| cwd.to_owned(), |folder| cwd.join(folder));
    let settings =
        begin.canonicalize().ok().and_then(|begin| begin.ancestors().map(settings_in).find(|found| !found.is_empty()));
    let manifest = Some(cwd.join(MANIFEST)).filter(|path| path.is_file());
    settings.into_iter().flatten().chain(manifest).collect()
}

fn settings_in(folder: &Path) -> Vec<PathBuf> {
    SETTINGS.map(|name| folder.join(name)).into_iter().filter(|path| path.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nearest_settings_and_the_manifest_of_where_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        let package = top.join("libraries/one");
        fs::create_dir_all(&package).unwrap();
        fs::create_dir(top.join("elsewhere")).unwrap();
        let found = |env: &[(&str, &Path)]| {
            let env: Vec<_> =
                env.iter().map(|(name, value)| ((*name).to_owned(), value.display().to_string())).collect();
            let found = files(&top, &env).into_iter().map(|path| path.strip_prefix(&top).unwrap().to_owned());
            found.map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let member = ("CARGO_MANIFEST_DIR", package.as_path());
        assert!(found(&[member]).is_empty());
        for name in ["Cargo.toml", "libraries/one/Cargo.toml", "clippy.toml", "elsewhere/clippy.toml"] {
            fs::write(top.join(name), "").unwrap();
        }
        assert_eq!(found(&[member]), ["clippy.toml", "Cargo.toml"]);
        assert_eq!(found(&[]), ["clippy.toml", "Cargo.toml"]);
        fs::write(top.join("libraries/.clippy.toml"), "").unwrap();
        fs::write(top.join("libraries/clippy.toml"), "").unwrap();
        assert_eq!(
            found(&[member]),
            ["libraries/.clippy.toml", "libraries/clippy.toml", "Cargo.toml"],
            "it warns of both"
        );
        let elsewhere = ("CLIPPY_CONF_DIR", Path::new("elsewhere"));
        assert_eq!(found(&[member, elsewhere]), ["elsewhere/clippy.toml", "Cargo.toml"]);
    }
}
