//! What a [`FileTreeSource`](super::FileTreeSource) takes and what it leaves out.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use backup_core::content::EntryPath;
use backup_core::{Error, Result};
use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{OFlags, Stat};

use crate::directory::{Directory, identity};

/// Extensions of files that are read as disk images, unless
/// [`with_image_extensions`](SourceOptions::with_image_extensions) says otherwise.
pub const IMAGE_EXTENSIONS: &[&str] = &["img", "raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso"];

/// The file that marks a directory as a cache, and how it begins (the "Cache Directory Tagging Specification").
pub(super) const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Options of a [`FileTreeSource`](super::FileTreeSource).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceOptions {
    /// Patterns of what is left out, with everything below. `*` and `?` stay within a component,
    /// `**` crosses them. A pattern without `/` matches the name of an entry anywhere; one with `/`
    /// matches whole entry paths (a leading `/` is ignored: entry paths are relative). Default: none.
    pub exclude: Vec<String>,
    /// Directories on which another file system is mounted are taken without their contents. Default: no.
    pub one_file_system: bool,
    /// Directories with a valid `CACHEDIR.TAG` are taken with nothing but that file. Default: no.
    pub exclude_caches: bool,
    /// A directory that is left out with everything in it, under whatever path the walk meets it (by device and inode): where
    /// the repository is, which would grow while it is read. [`FileTreeSource::left_out`](super::FileTreeSource::left_out) says
    /// where it was met. Roots are never left out. Default: none.
    pub leave_out: Option<PathBuf>,
    /// Extended attributes of files and directories, access control lists among them. Default: yes.
    pub extended_attributes: bool,
    /// Files with these extensions (any case, without dot) are read as disk images.
    /// Default: [`IMAGE_EXTENSIONS`].
    pub image_extensions: Vec<String>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            exclude: Vec::new(),
            one_file_system: false,
            exclude_caches: false,
            leave_out: None,
            extended_attributes: true,
            image_extensions: IMAGE_EXTENSIONS.iter().map(ToString::to_string).collect(),
        }
    }
}

impl SourceOptions {
    /// Leaves out what these patterns match; see [`exclude`](Self::exclude).
    #[must_use]
    pub fn with_exclude(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.exclude = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Whether to stay on the file systems of the roots.
    #[must_use]
    pub const fn with_one_file_system(mut self, yes: bool) -> Self {
        self.one_file_system = yes;
        self
    }

    /// Whether to leave out the contents of tagged caches.
    #[must_use]
    pub const fn with_exclude_caches(mut self, yes: bool) -> Self {
        self.exclude_caches = yes;
        self
    }

    /// The directory that is left out; see [`leave_out`](Self::leave_out).
    #[must_use]
    pub fn with_leave_out(mut self, directory: impl Into<PathBuf>) -> Self {
        self.leave_out = Some(directory.into());
        self
    }

    /// Whether to read extended attributes.
    #[must_use]
    pub const fn with_extended_attributes(mut self, yes: bool) -> Self {
        self.extended_attributes = yes;
        self
    }

    /// Extensions of files that are read as disk images.
    #[must_use]
    pub fn with_image_extensions(mut self, extensions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.image_extensions = extensions.into_iter().map(Into::into).collect();
        self
    }
}

/// Compiled options.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) options: SourceOptions,
    names: GlobSet,
    paths: GlobSet,
    /// Device and inode of the directory that is left out.
    left_out: Option<(u64, u64)>,
}

impl Selection {
    pub(super) fn new(options: SourceOptions) -> Result<Self> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in &options.exclude {
            let invalid = |error: globset::Error| Error::InvalidArgument {
                what: format!("exclude pattern {pattern:?}"),
                reason: error.kind().to_string(),
            };
            let anchored = pattern.trim_start_matches('/').trim_end_matches('/');
            let glob = GlobBuilder::new(anchored).literal_separator(true).build().map_err(invalid)?;
            let set = if pattern.trim_end_matches('/').contains('/') { &mut paths } else { &mut names };
            set.add(glob);
        }
        let built = |set: GlobSetBuilder| {
            set.build().map_err(|error| Error::InvalidArgument {
                what: "exclude patterns".into(),
                reason: error.kind().to_string(),
            })
        };
        let left_out = match &options.leave_out {
            Some(path) => {
                let unreadable = |source| Error::Source { name: path.display().to_string(), source };
                let directory = Directory::open(path).map_err(unreadable)?;
                Some(identity(&directory.stat_self().map_err(unreadable)?))
            }
            None => None,
        };
        Ok(Self { names: built(names)?, paths: built(paths)?, left_out, options })
    }

    pub(super) fn is_excluded(&self, path: &EntryPath) -> bool {
        let matches = |set: &GlobSet, bytes: &[u8]| {
            !set.is_empty() && set.is_match_candidate(&Candidate::new(Path::new(OsStr::from_bytes(bytes))))
        };
        matches(&self.names, path.file_name()) || matches(&self.paths, path.as_bytes())
    }

    /// Whether this is the directory that is left out.
    pub(super) fn is_left_out(&self, stat: &Stat) -> bool {
        self.left_out.is_some_and(|left_out| left_out == identity(stat))
    }

    /// Whether the directory is a cache whose contents are left out.
    pub(super) fn is_skipped_cache(&self, directory: &Directory) -> bool {
        if !self.options.exclude_caches {
            return false;
        }
        let Ok(tag) = directory.open_file(CACHE_TAG, OFlags::RDONLY) else { return false };
        tag.metadata().is_ok_and(|metadata| metadata.is_file()) && begins_with_signature(&tag)
    }

    pub(super) fn has_image_extension(&self, name: &[u8]) -> bool {
        let extension = name.rsplitn(2, |byte| *byte == b'.').next().filter(|extension| extension.len() < name.len());
        extension.is_some_and(|extension| {
            self.options.image_extensions.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(extension))
        })
    }
}

fn begins_with_signature(mut tag: &File) -> bool {
    let mut beginning = [0; CACHE_SIGNATURE.len()];
    tag.read_exact(&mut beginning).is_ok() && beginning == CACHE_SIGNATURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_anywhere_or_whole_paths() {
        let options = SourceOptions::default().with_exclude(["*.tmp", "cache/", "/home/*/x", "var/**/log", "a[bc]"]);
        let selection = Selection::new(options).unwrap();
        let excluded = |path: &str| selection.is_excluded(&path.parse().unwrap());
        for path in ["a.tmp", "x/y/b.tmp", "cache", "x/cache", "home/me/x", "var/log", "var/a/b/log", "x/ab"] {
            assert!(excluded(path), "{path}");
        }
        for path in ["tmp", "a.tmpx", "home/me/y/x", "home/x", "root/home/me/x", "var", "var/logs", "cache2", "ad"] {
            assert!(!excluded(path), "{path}");
        }
        let latin1 = EntryPath::new(b"dir/\xe9.tmp".to_vec()).unwrap();
        assert!(selection.is_excluded(&latin1));
        let broken = SourceOptions::default().with_exclude(["a[b"]);
        assert!(Selection::new(broken).unwrap_err().to_string().contains("a[b"));
    }

    #[test]
    fn images_are_known_by_their_extension() {
        let selection = Selection::new(SourceOptions::default()).unwrap();
        for name in ["disk.img", "a.b.QCOW2", ".iso", "x.Vmdk"] {
            assert!(selection.has_image_extension(name.as_bytes()), "{name}");
        }
        for name in ["img", "disk.img.gz", "disk.imgx", "disk."] {
            assert!(!selection.has_image_extension(name.as_bytes()), "{name}");
        }
    }
}
