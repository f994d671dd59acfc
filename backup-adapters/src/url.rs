//! Storages by their address.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::archive::ArchiveStorage;
use backup_core::source::BlockSource;
use backup_core::storage::Storage;
use backup_core::{Error, Result};

use crate::image::ImageSource;
use crate::local::LocalStorage;

/// The schemes that [`open_url`] and [`create_url`] know. Those of object storage need a feature: `s3`, `gs`, `az`, or
/// `object` for all of them.
pub const SCHEMES: &[&str] = &["file", "s3", "gs", "az"];

/// Opens the storage at `url`: a plain path, `file:///absolute/path` with percent-encoding, or a bucket,
/// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` (module `object`). A file or block device is an
/// archive, which can only be read.
///
/// # Errors
///
/// [`Error::InvalidArgument`] for addresses that cannot be understood and
/// [`Error::Unsupported`] for paths on other machines (`host:/path`), schemes that are not known, or whose feature this program was built
/// without; neither shows
/// user names, passwords or queries of the address. Otherwise as [`LocalStorage::open`] and `ObjectStorage::open`.
pub fn open_url(url: &str) -> Result<Arc<dyn Storage>> {
    match bucket(url)? {
        Some(storage) => Ok(storage),
        None => open_path(local_path(url)?),
    }
}

/// As [`open_url`], for a path that need not be text.
///
/// # Errors
///
/// As [`LocalStorage::open`] and [`ArchiveStorage::open`].
pub fn open_path(path: impl AsRef<Path>) -> Result<Arc<dyn Storage>> {
    let path = path.as_ref();
    let is_archive = std::fs::metadata(path).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_file() || kind.is_block_device()
    });
    if is_archive {
        return Ok(Arc::new(ArchiveStorage::open(open_archive(path)?, &path.display().to_string())?));
    }
    Ok(Arc::new(LocalStorage::open(path)?))
}

/// The bytes of an archive in a file or on a block device.
///
/// # Errors
///
/// [`Error::NotFound`] where it does not exist; [`Error::Source`] where it cannot be opened.
pub fn open_archive(path: impl AsRef<Path>) -> Result<Arc<dyn BlockSource>> {
    let path = path.as_ref();
    let name = path.display().to_string();
    match ImageSource::open(path) {
        Ok(source) => Ok(Arc::new(source)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound { what: "archive", name }),
        Err(source) => Err(Error::Source { name, source }),
    }
}

/// As [`open_url`], but creates what can be created: for a local path its directory. Buckets are not created.
///
/// # Errors
///
/// As [`open_url`] and [`LocalStorage::create`].
pub fn create_url(url: &str) -> Result<Arc<dyn Storage>> {
    match bucket(url)? {
        Some(storage) => Ok(storage),
        None => Ok(Arc::new(LocalStorage::create(local_path(url)?)?)),
    }
}

/// Whether `url` names a place that is reached over a network.
#[must_use]
pub fn is_remote(url: &str) -> bool {
    split_scheme(url).is_some_and(|(scheme, _)| !scheme.eq_ignore_ascii_case("file"))
}

/// The bucket that `url` names; `None` where it is not the address of one.
#[cfg(feature = "object-client")]
fn bucket(url: &str) -> Result<Option<Arc<dyn Storage>>> {
    use crate::object::{Address, ObjectOptions, ObjectStorage};

    let Some(address) = Address::parse(url)? else { return Ok(None) };
    Ok(Some(Arc::new(ObjectStorage::open(&address, &ObjectOptions::from_environment())?)))
}

/// As above, in a program that was built without object storage.
#[cfg(not(feature = "object-client"))]
fn bucket(url: &str) -> Result<Option<Arc<dyn Storage>>> {
    match split_scheme(url) {
        Some((scheme, _)) if ["s3", "gs", "az"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
            Err(Error::Unsupported {
                what: "storage address",
                name: format!(
                    "{} (this program was built without the feature \"object\" of backup-adapters)",
                    redacted(url)
                ),
            })
        }
        _ => Ok(None),
    }
}

/// `url` as it may be shown: without user name, password, query and fragment.
#[must_use]
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = split_scheme(url) else { return url.to_owned() };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // A password may hold an unencoded @ or /: everything up to the last @ is left out.
    match (path.rsplit_once('@'), authority.rsplit_once('@')) {
        (Some((_, rest)), _) => format!("{scheme}://...@{rest}"),
        (None, Some((_, host))) => format!("{scheme}://...@{host}{path}"),
        (None, None) => format!("{scheme}://{authority}{path}"),
    }
}

/// The path that `url` names on this machine: a plain path, or that of a `file:` address.
///
/// # Errors
///
/// As [`open_url`], for addresses.
pub fn local_path(url: &str) -> Result<PathBuf> {
    let Some((scheme, rest)) = split_scheme(url) else {
        if url.is_empty() {
            return Err(Error::InvalidArgument { what: "storage address".into(), reason: "it is empty".into() });
        }
        if let Some(host) = other_machine(url) {
            return Err(Error::Unsupported {
                what: "storage address",
                name: format!(
                    "a path on the machine {host} (a directory of this machine that is called so begins with ./)"
                ),
            });
        }
        return Ok(PathBuf::from(url));
    };
    if !scheme.eq_ignore_ascii_case("file") {
        let known = SCHEMES.join("://, ");
        return Err(Error::Unsupported {
            what: "storage address",
            name: format!("{} (known: plain paths, {known}://)", redacted(url)),
        });
    }
    let invalid = |reason: &str| Error::InvalidArgument {
        what: format!("storage address {:?}", redacted(url)),
        reason: reason.into(),
    };
    let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(invalid("a file address has three slashes and an absolute path: file:///path"));
    }
    if path.contains(['?', '#']) {
        return Err(invalid("? and # in a file address are written %3F and %23"));
    }
    let bytes = percent_decoded(path).ok_or_else(|| invalid("a % is not followed by two hexadecimal digits"))?;
    if bytes.contains(&0) {
        return Err(invalid("the path contains NUL"));
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// The machine of `host:/path` and `user@host:path`, as programs that copy over SSH have them.
fn other_machine(url: &str) -> Option<&str> {
    let component = url.split('/').next().unwrap_or_default();
    // Who is meant on that machine may be a secret.
    let (host, path) = match component.rsplit_once('@') {
        Some((_, place)) => place.split_once(':')?,
        None => component.split_once(':').filter(|(_, path)| path.is_empty() && url.len() > component.len())?,
    };
    (!host.is_empty() && !path.contains('@')).then_some(host)
}

/// The scheme and what follows `://`; `None` for plain paths.
pub(crate) fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then_some((scheme, rest))
}

pub(crate) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.as_bytes().split(|byte| *byte == b'%');
    let mut out = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let [high, low] = digits else { return None };
        out.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
        out.extend_from_slice(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn properties_hold_for_the_corpus() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/storage_url");
        let mut count = 0;
        for file in std::fs::read_dir(directory).unwrap() {
            properties::storage_url(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{directory} is empty");
    }

    fn path(url: &str) -> Vec<u8> {
        local_path(url).unwrap().as_os_str().as_bytes().to_vec()
    }

    #[test]
    fn paths_and_file_addresses() {
        assert_eq!(path("/a/b"), b"/a/b");
        assert_eq!(path("a b%20?#"), b"a b%20?#", "plain paths are taken as they are");
        assert_eq!(path("./x:y"), b"./x:y");
        assert_eq!(path("./user@host:/y"), b"./user@host:/y");
        assert_eq!(path("/a/user@host:/y"), b"/a/user@host:/y");
        assert_eq!(path("x:y"), b"x:y");
        assert_eq!(path("file:///a/b%20c%c3%A4%ff"), b"/a/b c\xc3\xa4\xff");
        assert_eq!(path("FILE://localhost/a"), b"/a");
        for bad in
            ["", "file://a/b", "file://", "file:///a%2", "file:///a%zz", "file:///a%+1", "file:///a?b", "file:///%00"]
        {
            assert!(matches!(local_path(bad), Err(Error::InvalidArgument { .. })), "{bad}");
        }
    }

    #[test]
    fn unknown_schemes_are_named_without_their_secrets() {
        for scheme in ["sftp", "s3"] {
            for rest in [
                "key:hunter2@bucket/path?token=hunter2#hunter2",
                "hunter2@bucket",
                "bucket/path?hunter2",
                "bucket?hunter2",
                "user:hun/hunter2@bucket/path",
            ] {
                let url = format!("{scheme}://{rest}");
                let Err(error) = open_url(&url) else { panic!("{url} was opened") };
                let text = format!("{error} {error:?}");
                assert!(text.contains("bucket") && text.contains(scheme), "{text}");
                assert!(scheme == "s3" || text.contains("file://"), "{text}");
                assert!(!text.contains("hunter2"), "{text}");
            }
        }
    }

    #[test]
    fn another_machine_is_no_directory_of_this_one() {
        for url in ["me@host:/x", "me@host:x", "host:/x", "me:hunter2@host:/x"] {
            let Err(error) = open_url(url) else { panic!("{url} was opened") };
            assert!(matches!(error, Error::Unsupported { .. }), "{url}: {error}");
            let text = error.to_string();
            assert!(url.starts_with("me:") || text.contains("host"), "{text}");
            assert!(!text.contains("hunter2") && text.contains("./"), "{text}");
        }
    }

    #[test]
    fn opens_only_what_exists_and_creates_the_rest() {
        let base = tempfile::tempdir().unwrap();
        let url = format!("file://{}/a%20b", base.path().display());
        assert!(matches!(open_url(&url), Err(Error::NotFound { .. })));
        create_url(&url).unwrap();
        assert!(open_url(&url).is_ok() && base.path().join("a b").is_dir());
    }
}
