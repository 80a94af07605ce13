//! What the texts of a compile say of places: whether they use their own file's name, and whether they name files by paths that lead out
//! of the project.

use buildbee_proto::digest::Digest;
use buildbee_proto::path::RelPath;

use super::Obstacle;
use super::root::{Project, is_system};
use crate::inputs::filehash::FileHashes;
use crate::inputs::scan::Scan;

/// System headers that hand `__FILE__` on to a function and do nothing else with it: then the name stands in the object as it is, or not
/// at all. By the ends of their paths.
const HARMLESS: [&str; 7] = [
    "/assert.h",
    "/bits/c++config.h",
    "/debug/assertions.h",
    "/debug/formatter.h",
    "/debug/macros.h",
    "/debug/string",
    "/pstl/pstl_config.h",
];

/// Fails for the first text that makes the folders matter. `absolute`: files have absolute names that `__FILE__` shows.
pub(super) fn check(
    files: &[(RelPath, Digest)],
    project: &Project,
    absolute: bool,
    hashes: &FileHashes,
) -> Result<(), Obstacle> {
    let inner = project.inner_names();
    for (path, digest) in files {
        let scan = hashes.scan_of(digest).ok_or_else(|| Obstacle::Forgotten(path.clone()))?;
        if absolute && scan.own_name && !(is_system(path) && HARMLESS.iter().any(|end| path.as_str().ends_with(end))) {
            return Err(Obstacle::OwnName(path.clone()));
        }
        if (scan.far_names && names_far(&scan, &project.roots)) || names_inner(&scan, &inner) {
            return Err(Obstacle::FarName(path.clone()));
        }
    }
    Ok(())
}

/// Whether a name may lead from one folder into one that is in it here.
fn names_inner(scan: &Scan, inner: &[&str]) -> bool {
    let mut names = scan.includes.iter().chain(&scan.probes).map(|include| &include.name);
    !inner.is_empty() && names.any(|name| name.split('/').any(|part| inner.contains(&part)))
}

/// Whether a name is absolute and not the system's, or goes up and comes back through a folder that is called like one above the
/// project.
fn names_far(scan: &Scan, roots: &[RelPath]) -> bool {
    let above: Vec<&str> = roots.iter().flat_map(RelPath::components).collect();
    scan.includes.iter().chain(&scan.probes).any(|include| {
        if let Some(path) = include.name.strip_prefix('/') {
            let path = RelPath::try_from(path.trim_start_matches('/'));
            return !path.is_ok_and(|path| is_system(&path));
        }
        let after_up = include.name.split('/').skip_while(|part| *part != "..");
        after_up.filter(|part| *part != "..").any(|part| above.contains(&part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::scan::scan;

    #[test]
    fn names_that_lead_out_of_the_project_are_seen() {
        let root = RelPath::try_from("home/bee/project").unwrap();
        for (text, far) in [
            ("#include \"x.h\"", false),
            ("#include \"../x.h\"", false),
            ("#include \"../include/x.h\"", false),
            ("#include \"../project/x.h\"", true),
            ("#include <a/../../bee/x.h>", true),
            ("#include \"/home/bee/project/x.h\"", true),
            ("#include \"/usr/include/x.h\"", false),
            ("#if __has_include(\"/srv/x.h\")\n#endif", true),
        ] {
            let scan = scan(text.as_bytes());
            assert_eq!(scan.far_names && names_far(&scan, std::slice::from_ref(&root)), far, "{text}");
        }
    }

    #[test]
    fn names_of_folders_within_are_seen() {
        for (text, inner) in [
            ("#include \"x.h\"", false),
            ("#include <target/x.h>", true),
            ("#include <gen/target.h>", false),
            ("#if __has_include(\"a/target/x.h\")\n#endif", true),
        ] {
            let scan = scan(text.as_bytes());
            assert_eq!(names_inner(&scan, &["target"]), inner, "{text}");
            assert!(!names_inner(&scan, &[]));
        }
    }
}
