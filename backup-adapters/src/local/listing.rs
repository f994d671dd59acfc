//! Listing in byte order of keys, page by page, without walking what lies outside the page.

use std::io;

use backup_core::storage::{Key, ListPage, ObjectInfo};
use rustix::fs::FileType;

use super::error::is_absent;
use crate::directory::{Directory, file_type};

/// One page of at most `size` objects.
pub(super) fn page(root: &Directory, prefix: &str, after: Option<&Key>, size: usize) -> io::Result<ListPage> {
    let after = after.map(Key::as_str);
    // One more than a page tells whether another follows.
    let mut listing = Listing { prefix, after, limit: size.saturating_add(1), objects: Vec::new() };
    listing.visit(root, "")?;
    let more = listing.objects.len() > size;
    listing.objects.truncate(size);
    Ok(ListPage::new(listing.objects, more))
}

struct Listing<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    objects: Vec<ObjectInfo>,
}

impl Listing<'_> {
    /// Visits a directory whose path is empty or ends with a slash.
    fn visit(&mut self, directory: &Directory, path: &str) -> io::Result<()> {
        // Directories take part in the order with their slash: "a-b" stands before "a/b".
        let mut wanted: Vec<(String, FileType)> = Vec::new();
        for child in directory.children()? {
            let Ok(name) = std::str::from_utf8(&child.name) else { continue };
            let mut key = format!("{path}{name}");
            if !Key::is_valid(&key) {
                continue;
            }
            let is_wanted = match child.kind {
                FileType::Directory => {
                    key.push('/');
                    self.may_hold_wanted(&key)
                }
                FileType::RegularFile => self.is_wanted(&key),
                _ => false,
            };
            if is_wanted {
                wanted.push((key, child.kind));
            }
        }
        wanted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (key, kind) in wanted {
            if self.objects.len() >= self.limit {
                return Ok(());
            }
            let name = key.get(path.len()..).unwrap_or_default().trim_end_matches('/').as_bytes();
            if kind == FileType::Directory {
                match directory.child(name) {
                    Ok(child) => self.visit(&child, &key)?,
                    Err(error) if is_absent(&error) => {}
                    Err(error) => return Err(error),
                }
            } else {
                match directory.stat(name) {
                    Ok(stat) if file_type(&stat) == FileType::RegularFile => self.push(key, stat.st_size)?,
                    Ok(_) => {}
                    Err(error) if is_absent(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn is_wanted(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && self.after.is_none_or(|after| key > after)
    }

    /// Whether a directory, whose path ends with a slash, may hold wanted objects.
    fn may_hold_wanted(&self, directory: &str) -> bool {
        (directory.starts_with(self.prefix) || self.prefix.starts_with(directory))
            && self.after.is_none_or(|after| directory > after || after.starts_with(directory))
    }

    fn push(&mut self, key: String, size: impl TryInto<u64>) -> io::Result<()> {
        let key = Key::new(key).map_err(io::Error::other)?;
        let size = size.try_into().map_err(|_| io::Error::other("a file has a negative size"))?;
        self.objects.push(ObjectInfo::new(key, size));
        Ok(())
    }
}
