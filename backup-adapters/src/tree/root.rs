//! Where walks begin, and what their entries are called.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use backup_core::content::EntryPath;
use backup_core::{Error, Result};

use crate::directory::{Directory, parent};

/// One root of a walk, opened.
#[derive(Debug)]
pub(super) struct Root {
    /// Its entry path; `None` where its contents stand at the top.
    pub(super) path: Option<EntryPath>,
    /// The directory that holds it, or itself where `path` is `None`.
    pub(super) base: Arc<Directory>,
    /// Its name in that directory.
    pub(super) name: Vec<u8>,
}

impl Root {
    /// Opens the roots, in the order of their entry paths.
    pub(super) fn open_all(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Result<Vec<Self>> {
        let mut roots = paths.into_iter().map(|path| Self::open(&path.into())).collect::<Result<Vec<_>>>()?;
        roots.sort_by(|a, b| a.path.cmp(&b.path));
        for pair in roots.windows(2) {
            let [first, second] = pair else { continue };
            let overlap = match (&first.path, &second.path) {
                (Some(first), Some(second)) => second.is_within(first),
                _ => true,
            };
            if overlap {
                let name = |root: &Self| root.path.as_ref().map_or(".".to_owned(), ToString::to_string);
                return Err(Error::InvalidArgument {
                    what: "roots".into(),
                    reason: format!("{} lies within {}", name(second), name(first)),
                });
            }
        }
        Ok(roots)
    }

    fn open(path: &Path) -> Result<Self> {
        let unreadable = |error| Error::Source { name: path.display().to_string(), source: error };
        let Some(entry) = entry_path(path)? else {
            let base = Directory::open(path).map_err(unreadable)?;
            return Ok(Self { path: None, base: Arc::new(base), name: Vec::new() });
        };
        let place = place(path).map_err(unreadable)?;
        let name = place.file_name().map_or_else(|| b".".to_vec(), |name| name.as_bytes().to_vec());
        let base = Directory::open(parent(&place)).map_err(unreadable)?;
        base.stat(&name).map_err(unreadable)?;
        Ok(Self { path: Some(entry), base: Arc::new(base), name })
    }
}

/// Where a root stands: `link/` and `link/.` are what the link leads to, as they are for other programs.
fn place(path: &Path) -> io::Result<PathBuf> {
    let bytes = path.as_os_str().as_bytes();
    let plain: PathBuf = path.components().collect();
    if (bytes.ends_with(b"/") || bytes.ends_with(b"/.")) && plain.is_symlink() {
        plain.canonicalize()
    } else {
        Ok(plain)
    }
}

/// The entry path of a root: its normal components. `None` for `.` and `/`.
fn entry_path(path: &Path) -> Result<Option<EntryPath>> {
    let invalid = |reason: &str| Error::InvalidArgument {
        what: format!("root {:?}", path.display().to_string()),
        reason: reason.to_owned(),
    };
    if path.as_os_str().is_empty() {
        return Err(invalid("it is empty"));
    }
    let mut bytes: Vec<u8> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                if !bytes.is_empty() {
                    bytes.push(b'/');
                }
                bytes.extend_from_slice(name.as_bytes());
            }
            Component::ParentDir => return Err(invalid("a component is ..")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    if bytes.is_empty() { Ok(None) } else { EntryPath::new(bytes).map(Some) }
}

/// The error of a directory that cannot be reached any more.
pub(super) fn replaced() -> io::Error {
    io::Error::other("the directory was replaced by another while it was read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> Option<String> {
        entry_path(Path::new(path)).unwrap().map(|path| path.to_string())
    }

    #[test]
    fn entries_are_named_like_their_root() {
        for (path, name) in [
            ("/a/b", Some("a/b")),
            ("p", Some("p")),
            ("./p/q/", Some("p/q")),
            ("a//b/./c", Some("a/b/c")),
            (".", None),
            ("./", None),
            ("/", None),
        ] {
            assert_eq!(named(path).as_deref(), name, "{path}");
        }
        for bad in ["", "..", "a/../b", "/.."] {
            assert!(entry_path(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_link_with_a_slash_is_what_it_leads_to() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("real/dir")).unwrap();
        std::os::unix::fs::symlink("real/dir", base.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/", base.path().join("top")).unwrap();
        let open = |name: &str| Root::open(&base.path().join(name)).unwrap();
        for (name, stands) in [("link", "link"), ("link/", "dir"), ("link/.", "dir"), ("real/", "real"), ("top/", ".")]
        {
            let root = open(name);
            assert_eq!(root.name, stands.as_bytes(), "{name}");
            let entry = root.path.unwrap();
            assert_eq!(entry.file_name(), name.trim_end_matches(['/', '.']).as_bytes(), "{name}");
            assert!(root.base.child(&root.name).is_ok() || name == "link", "{name}");
        }
    }

    #[test]
    fn roots_are_ordered_and_apart() {
        let base = tempfile::tempdir().unwrap();
        for name in ["b", "a", "a/c", "a-b"] {
            std::fs::create_dir(base.path().join(name)).unwrap();
        }
        let paths = |names: &[&str]| names.iter().map(|name| base.path().join(name)).collect::<Vec<_>>();
        let roots = Root::open_all(paths(&["b", "a-b", "a"])).unwrap();
        let names: Vec<_> = roots.iter().map(|root| root.name.clone()).collect();
        assert_eq!(names, [b"a".to_vec(), b"a-b".to_vec(), b"b".to_vec()]);
        for overlapping in [["a", "a"], ["a/c", "a"]] {
            assert!(Root::open_all(paths(&overlapping)).is_err(), "{overlapping:?}");
        }
        assert!(Root::open_all([".", "."]).is_err());
        let error = Root::open_all(paths(&["missing"])).unwrap_err();
        assert!(matches!(&error, Error::Source { name, .. } if name.ends_with("missing")), "{error}");
    }
}
