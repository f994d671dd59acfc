//! [`ObjectStorage`]: the storage interface on a bucket.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use backup_core::entropy::{Entropy, OsEntropy};
use backup_core::storage::{Capabilities, Key, ListPage, ObjectInfo, PutMode, Storage, StorageError};
use backup_core::{Error, Result};
use bytes::Bytes;
use object_store::PutMultipartOptions;
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectMeta, ObjectStoreExt, PutMode as CloudMode, PutOptions,
    PutPayload,
};

use super::address::{Address, Cloud};
use super::cloud::{self, Bucket};
use super::error::{Kind, Problem};
use super::options::ObjectOptions;
use super::requests::Requests;
use super::retry::RetryPolicy;

/// Objects in a page of a listing: what S3 gives at most.
const PAGE: usize = 1000;

/// Longer objects that may replace others are put in parts, each of this length but the last.
const PART: usize = 32 * 1024 * 1024;

/// The name of the metadata that tells who created an object. Letters only, as Azure wants it.
const CREATION: &str = "creation";

/// A bucket, or what is below a prefix of it, as a storage. See the [module](crate::object).
///
/// Cloning shares threads and connections.
#[derive(Clone)]
pub struct ObjectStorage {
    inner: Arc<Inner>,
    requests: Arc<Requests>,
}

/// What requests take with them to their thread.
#[derive(Clone)]
struct Inner {
    bucket: Arc<dyn Bucket>,
    cloud: Cloud,
    /// Empty, or with a slash at its end.
    prefix: String,
    shown: String,
    page_size: usize,
    policy: RetryPolicy,
}

impl ObjectStorage {
    /// The storage at `address`. Nothing is asked of the server yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a configuration that makes no sense, [`Error::Unsupported`] for a cloud that this
    /// program was built without, [`Error::Storage`] where no threads can be had.
    pub fn open(address: &Address, options: &ObjectOptions) -> Result<Self> {
        let bucket = cloud::open(address, options)?;
        let shown = match address.prefix.as_str() {
            "" => format!("{}://{}", address.cloud, address.bucket),
            prefix => format!("{}://{}/{prefix}", address.cloud, address.bucket),
        };
        let prefix = if address.prefix.is_empty() { String::new() } else { format!("{}/", address.prefix) };
        let requests = Requests::new().map_err(|error| Error::Storage {
            operation: "open",
            key: shown.clone(),
            source: StorageError::Other(error.into()),
        })?;
        let inner =
            Inner { bucket, cloud: address.cloud, prefix, shown, page_size: PAGE, policy: options.retry().clone() };
        Ok(Self { inner: Arc::new(inner), requests: Arc::new(requests) })
    }

    /// Pages of at most `objects` objects (at least 1, at most 1000).
    #[must_use]
    pub fn with_page_size(mut self, objects: usize) -> Self {
        let mut inner = (*self.inner).clone();
        inner.page_size = objects.clamp(1, PAGE);
        self.inner = Arc::new(inner);
        self
    }
}

impl Storage for ObjectStorage {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        let inner = Arc::clone(&self.inner);
        let path = inner.path(key)?;
        self.requests.run(async move {
            match mode {
                PutMode::Create => inner.create(&path, bytes).await,
                PutMode::Overwrite if bytes.len() > PART => inner.replace_by_parts(&path, &bytes).await,
                PutMode::Overwrite => inner.replace(&path, bytes).await,
            }
        })
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        let inner = Arc::clone(&self.inner);
        let path = inner.path(key)?;
        self.requests.run(async move { inner.get(&path, limit).await })
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        let inner = Arc::clone(&self.inner);
        let path = inner.path(key)?;
        self.requests.run(async move { inner.get_range(&path, range).await })
    }

    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        let inner = Arc::clone(&self.inner);
        let path = inner.path(key)?;
        let size = self.requests.run(async move { inner.size(&path).await })?;
        Ok(ObjectInfo::new(key.clone(), size))
    }

    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        let inner = Arc::clone(&self.inner);
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.requests.run(async move { inner.list(&prefix, after.as_ref()).await })
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let inner = Arc::clone(&self.inner);
        let path = inner.path(key)?;
        self.requests.run(async move {
            let delete = || async { inner.bucket.delete(&path).await.map_err(Problem::from) };
            match inner.policy.repeat(0, delete).await {
                Err(StorageError::NotFound) => Ok(()),
                result => result,
            }
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

impl Inner {
    fn path(&self, key: &Key) -> Result<Path, StorageError> {
        Path::parse(format!("{}{key}", self.prefix)).map_err(|error| StorageError::Other(error.into()))
    }

    async fn replace(&self, path: &Path, bytes: Bytes) -> Result<(), StorageError> {
        let size = length(&bytes);
        let put = || async {
            let put = self.bucket.put_opts(path, PutPayload::from_bytes(bytes.clone()), PutOptions::default());
            put.await.map(drop).map_err(|error| Problem::from(error).of_put())
        };
        self.policy.repeat(size, put).await
    }

    /// Parts are seen by nobody until all of them are there.
    async fn replace_by_parts(&self, path: &Path, bytes: &Bytes) -> Result<(), StorageError> {
        let creation = random()?;
        // Azure takes none with parts, and needs none: there, parts can be put together as often as one likes.
        let attributes = if self.cloud == Cloud::Azure { Attributes::new() } else { marked(&creation) };
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let begin = || async {
            let begin = self.bucket.create_multipart_opts(path, options.clone());
            begin.await.map_err(|error| Problem::from(error).of_put())
        };
        let upload = self.policy.repeat(0, begin).await?;
        let result = async {
            let mut parts = Vec::new();
            for (number, start) in (0..bytes.len()).step_by(PART).enumerate() {
                let part = bytes.slice(start..bytes.len().min(start.saturating_add(PART)));
                let put = || async {
                    let payload = PutPayload::from_bytes(part.clone());
                    self.bucket.put_part(path, &upload, number, payload).await.map_err(Problem::from)
                };
                parts.push(self.policy.repeat(length(&part), put).await?);
            }
            let complete = || async {
                self.bucket.complete_multipart(path, &upload, parts.clone()).await.map(drop).map_err(Problem::from)
            };
            self.policy.repeat(0, complete).await
        };
        let result = match result.await {
            // An upload that was completed is forgotten. It may be that this was done and the answer was lost.
            Err(StorageError::NotFound) => match self.creation(path).await {
                Ok(Some(found)) if found == creation => return Ok(()),
                _ => Err(StorageError::Transient("the server forgot the parts of an upload".into())),
            },
            result => result,
        };
        if result.is_err() {
            // What remains of an upload that was given up costs money and hurts nobody; buckets can be told to remove it.
            let _ = self.bucket.abort_multipart(path, &upload).await;
        }
        result
    }

    /// Creates an object, or says that somebody else did.
    ///
    /// A try whose answer was lost may have been carried out, and may yet be. So the next one may be refused because of
    /// it; then the object tells by its metadata that it is ours.
    async fn create(&self, path: &Path, bytes: Bytes) -> Result<(), StorageError> {
        let creation = random()?;
        let options = PutOptions { mode: CloudMode::Create, attributes: marked(&creation), ..PutOptions::default() };
        let size = length(&bytes);
        let (mut number, mut is_open) = (0, false);
        loop {
            let put = async {
                let payload = PutPayload::from_bytes(bytes.clone());
                self.bucket.put_opts(path, payload, options.clone()).await.map(drop).map_err(Problem::from)
            };
            let problem = match self.policy.attempt(size, put).await {
                Ok(()) => return Ok(()),
                Err(problem) if problem.kind() == Kind::Exists => match self.creation(path).await {
                    Ok(Some(found)) if found == creation => return Ok(()),
                    Ok(_) => return Err(StorageError::AlreadyExists),
                    // It was another request under way (409), or the object was deleted meanwhile.
                    Err(StorageError::NotFound) => {
                        Problem::passing("another request for the same object was under way")
                    }
                    Err(error) => return Err(transient(error)),
                },
                Err(problem) => problem.of_put(),
            };
            is_open |= problem.may_pass();
            if problem.may_pass() && self.policy.again(number).await {
                number += 1;
                continue;
            }
            let error = problem.into_storage_error(number + 1);
            // A later refusal does not tell what became of an earlier try.
            return Err(if is_open { transient(error) } else { error });
        }
    }

    /// What the metadata of an object says of its creation.
    async fn creation(&self, path: &Path) -> Result<Option<String>, StorageError> {
        let head = || async {
            let options = GetOptions { head: true, ..GetOptions::default() };
            self.bucket.get_opts(path, options).await.map_err(Problem::from)
        };
        let found = self.policy.repeat(0, head).await?;
        Ok(found.attributes.get(&Attribute::Metadata(CREATION.into())).map(|value| value.as_ref().to_owned()))
    }

    async fn get(&self, path: &Path, limit: u64) -> Result<Bytes, StorageError> {
        let mut number = 0;
        loop {
            // The time is that of the answer's beginning; how long the rest may take is known then.
            let begin = async { self.bucket.get_opts(path, GetOptions::default()).await.map_err(Problem::from) };
            let problem = match self.policy.attempt(0, begin).await {
                Ok(found) => {
                    let size = found.meta.size;
                    if size > limit {
                        return Err(StorageError::TooLarge { size, limit });
                    }
                    let rest = async { found.bytes().await.map_err(Problem::from) };
                    match self.policy.attempt(size, rest).await {
                        Ok(bytes) if length(&bytes) == size => return Ok(bytes),
                        Ok(bytes) => Problem::passing(format!("{} of {size} bytes arrived", bytes.len())),
                        Err(problem) => problem,
                    }
                }
                Err(problem) => problem,
            };
            if !problem.may_pass() || !self.policy.again(number).await {
                return Err(problem.into_storage_error(number + 1));
            }
            number += 1;
        }
    }

    async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes, StorageError> {
        let Some(wanted) = range.end.checked_sub(range.start).filter(|wanted| *wanted > 0) else {
            let size = self.size(path).await?;
            let is_empty = range.start == range.end && range.end <= size;
            return if is_empty { Ok(Bytes::new()) } else { Err(StorageError::OutOfRange { size }) };
        };
        let get = || async {
            let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let found = self.bucket.get_opts(path, options).await?;
            if range.end > found.meta.size {
                return Ok(Err(StorageError::OutOfRange { size: found.meta.size }));
            }
            let bytes = found.bytes().await?;
            if length(&bytes) == wanted {
                Ok(Ok(bytes))
            } else {
                Err(Problem::passing(format!("{} of {wanted} bytes arrived", bytes.len())))
            }
        };
        match self.policy.repeat(wanted, get).await {
            Ok(result) => result,
            Err(error @ (StorageError::NotFound | StorageError::Transient(_) | StorageError::PermissionDenied(_))) => {
                Err(error)
            }
            // Servers answer in many ways where a range is none of the object's.
            Err(error) => match self.size(path).await {
                Ok(size) if range.end > size => Err(StorageError::OutOfRange { size }),
                _ => Err(error),
            },
        }
    }

    async fn size(&self, path: &Path) -> Result<u64, StorageError> {
        let head = || async { self.bucket.head(path).await.map_err(Problem::from) };
        Ok(self.policy.repeat(0, head).await?.size)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        let after = match after.map(Key::as_str) {
            // Everything that begins with the prefix comes before it.
            Some(after) if !after.starts_with(prefix) && after > prefix => return Ok(ListPage::default()),
            // Everything that begins with the prefix comes behind it.
            Some(after) if !after.starts_with(prefix) => None,
            after => after,
        };
        let whole = format!("{}{prefix}", self.prefix);
        let mut token = None;
        loop {
            let page = || async {
                let options = PaginatedListOptions {
                    offset: after.map(|after| format!("{}{after}", self.prefix)),
                    max_keys: Some(self.page_size),
                    page_token: token.clone(),
                    ..PaginatedListOptions::default()
                };
                self.bucket.list_paginated(Some(&whole), options).await.map_err(Problem::from)
            };
            let page = match self.policy.repeat(0, page).await {
                // Of a prefix without objects there is an empty page.
                Err(StorageError::NotFound) => return Err(StorageError::Other("the bucket does not exist".into())),
                page => page?,
            };
            let mut objects: Vec<ObjectInfo> =
                page.result.objects.iter().filter_map(|object| self.info(object)).collect();
            objects.retain(|object| after.is_none_or(|after| object.key.as_str() > after));
            if self.cloud == Cloud::Azure && token.is_none() && after.is_none() {
                self.add_prefix_itself(prefix, &mut objects).await?;
            }
            token = page.page_token;
            // A page of nothing but foreign objects would look like the end.
            if token.is_none() || !objects.is_empty() {
                return Ok(ListPage::new(objects, token.is_some()));
            }
        }
    }

    /// The library leaves out of Azure's listings what is named like the prefix, as it may be a directory.
    async fn add_prefix_itself(&self, prefix: &str, objects: &mut Vec<ObjectInfo>) -> Result<(), StorageError> {
        let Ok(key) = Key::new(prefix) else { return Ok(()) };
        if objects.first().is_some_and(|first| first.key == key) {
            return Ok(());
        }
        match self.size(&self.path(&key)?).await {
            Ok(size) => objects.insert(0, ObjectInfo::new(key, size)),
            Err(StorageError::NotFound) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// An object of the bucket as one of the repository; `None` for foreign ones.
    fn info(&self, object: &ObjectMeta) -> Option<ObjectInfo> {
        let key = object.location.as_ref().strip_prefix(&self.prefix)?;
        Some(ObjectInfo::new(Key::new(key).ok()?, object.size))
    }
}

impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectStorage").field(&self.inner.shown).finish()
    }
}

/// It is open what became of the request, whatever else is known.
fn transient(error: StorageError) -> StorageError {
    match error {
        error @ StorageError::Transient(_) => error,
        error => StorageError::Transient(Box::new(error)),
    }
}

/// The metadata of an object that this call creates.
fn marked(creation: &str) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::Metadata(CREATION.into()), creation.to_owned().into());
    attributes
}

fn random() -> Result<String, StorageError> {
    let mut bytes = [0; 16];
    OsEntropy.fill(&mut bytes).map_err(|error| StorageError::Other(error.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
