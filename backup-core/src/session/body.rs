//! The body of a backup: what it is, sealed, for those with the password.

use std::collections::BTreeMap;

use crate::content::{CatalogueRoot, PageRef};
use crate::error::Result;
use crate::format::cbor::{self, MapReader};
use crate::id::{BackupId, ChunkId, RepositoryId};
use crate::length::to_u64;
use crate::limits;
use crate::time::Timestamp;

/// Fields of a backup that do not come from its commit. Amounts are a plain list, in the order of
/// `docs/format.md`, "Backup body".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupBody {
    pub(crate) kind: String,
    pub(crate) host: String,
    pub(crate) tags: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
    pub(crate) parent: Option<BackupId>,
    pub(crate) catalogue: CatalogueRoot,
    pub(crate) amounts: [u64; AMOUNTS],
    pub(crate) problems: Vec<(String, String)>,
    pub(crate) problem_count: u64,
    /// The backups of other repositories that this one is a copy of, the first one first: repository and id there.
    pub(crate) origins: Vec<(RepositoryId, BackupId)>,
}

/// Number of amounts.
pub(crate) const AMOUNTS: usize = 8;

impl BackupBody {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        cbor::encode_map(|map| {
            map.text(1, &self.kind);
            map.text(2, &self.host);
            map.array(3, |array| self.tags.iter().for_each(|tag| array.text(tag)));
            map.array(4, |array| {
                for (name, value) in &self.labels {
                    array.array(|pair| {
                        pair.text(name);
                        pair.text(value);
                    });
                }
            });
            let (seconds, nanoseconds) = self.started.to_unix();
            map.i64(5, seconds);
            map.u64(6, u64::from(nanoseconds));
            let (seconds, nanoseconds) = self.finished.to_unix();
            map.i64(7, seconds);
            map.u64(8, u64::from(nanoseconds));
            if let Some(parent) = &self.parent {
                map.bytes(9, parent.as_bytes());
            }
            map.array(10, |array| {
                array.u64(u64::from(self.catalogue.height));
                array.bytes(self.catalogue.page.id.as_bytes());
                array.u64(u64::from(self.catalogue.page.length));
                array.u64(self.catalogue.entries);
            });
            map.array(11, |array| self.amounts.iter().for_each(|amount| array.u64(*amount)));
            map.array(12, |array| {
                for (name, message) in &self.problems {
                    array.array(|pair| {
                        pair.text(name);
                        pair.text(message);
                    });
                }
            });
            map.u64(13, self.problem_count);
            if !self.origins.is_empty() {
                map.array(14, |array| {
                    for (repository, backup) in &self.origins {
                        array.array(|pair| {
                            pair.bytes(repository.as_bytes());
                            pair.bytes(backup.as_bytes());
                        });
                    }
                });
            }
        })
    }

    /// Reads a body. `name` is the storage key of its object.
    pub(crate) fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        let mut map = cbor::decode(bytes, "backup body", &name)?.map()?;
        let kind = map.required(1)?.text()?.to_owned();
        let host = map.required(2)?.text()?.to_owned();
        let mut tags = Vec::new();
        for tag in map.required(3)?.array()? {
            tags.push(tag.text()?.to_owned());
        }
        let labels = pairs(&mut map, 4)?.into_iter().collect();
        let started = time(&mut map, 5)?;
        let finished = time(&mut map, 7)?;
        let parent = map.optional(9)?.map(|id| id.fixed().map(BackupId::new)).transpose()?;
        let mut root = map.required(10)?.array()?;
        let height = root.required()?.u64()?;
        let height = u8::try_from(height).map_err(|_| map.damaged("the catalogue is too high"))?;
        let id = ChunkId::new(root.required()?.fixed()?);
        let length = root.required()?.u32()?;
        let entries = root.required()?.u64()?;
        root.finish()?;
        let mut amounts = [0; AMOUNTS];
        let mut list = map.required(11)?.array()?;
        for amount in &mut amounts {
            *amount = list.required()?.u64()?;
        }
        list.finish()?;
        let problems = pairs(&mut map, 12)?;
        let problem_count = map.required(13)?.u64()?;
        let origins = origins(&mut map)?;
        map.finish()?;
        let catalogue = CatalogueRoot { height, page: PageRef { id, length }, entries };
        Ok(Self {
            kind,
            host,
            tags,
            labels,
            started,
            finished,
            parent,
            catalogue,
            amounts,
            problems,
            problem_count,
            origins,
        })
    }
}

fn pairs(map: &mut MapReader<'_>, key: u64) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for item in map.required(key)?.array()? {
        let mut pair = item.array()?;
        let (name, value) = (pair.required()?.text()?.to_owned(), pair.required()?.text()?.to_owned());
        pair.finish()?;
        out.push((name, value));
    }
    Ok(out)
}

fn origins(map: &mut MapReader<'_>) -> Result<Vec<(RepositoryId, BackupId)>> {
    let Some(field) = map.optional(14)? else { return Ok(Vec::new()) };
    let mut origins = Vec::new();
    for item in field.array()? {
        let mut pair = item.array()?;
        let origin = (RepositoryId::new(pair.required()?.fixed()?), BackupId::new(pair.required()?.fixed()?));
        pair.finish()?;
        origins.push(origin);
    }
    if origins.is_empty() || to_u64(origins.len()) > limits::ORIGINS {
        return Err(map.damaged("it is a copy of no backup, or of too many"));
    }
    Ok(origins)
}

fn time(map: &mut MapReader<'_>, key: u64) -> Result<Timestamp> {
    let (seconds, nanoseconds) = (map.required(key)?.i64()?, map.required(key.saturating_add(1))?.u32()?);
    Timestamp::from_unix(seconds, nanoseconds).map_err(|_| map.damaged("a time is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let body = BackupBody {
            kind: "data".into(),
            host: "node-1".into(),
            tags: vec!["nightly".into()],
            labels: BTreeMap::from([("database".into(), "tenants".into())]),
            started: Timestamp::from_unix(10, 1).unwrap(),
            finished: Timestamp::from_unix(20, 2).unwrap(),
            parent: Some(BackupId::new([1; 32])),
            catalogue: CatalogueRoot {
                height: 2,
                page: PageRef { id: ChunkId::new([2; 32]), length: 77 },
                entries: 1_000_000,
            },
            amounts: [1, 2, 3, 4, 5, 6, 7, 8],
            problems: vec![("a".into(), "b".into())],
            problem_count: 9,
            origins: Vec::new(),
        };
        let copied = |count: usize| BackupBody {
            origins: vec![(RepositoryId::new([7; 16]), BackupId::new([8; 32])); count],
            ..body.clone()
        };
        for body in [body.clone(), copied(1), copied(64)] {
            let bytes = body.encode().unwrap();
            assert_eq!(BackupBody::decode(&bytes, "bodies/x").unwrap(), body);
            for length in 0..bytes.len() {
                assert!(BackupBody::decode(&bytes[..length], "bodies/x").is_err(), "{length}");
            }
        }
        assert!(BackupBody::decode(&copied(65).encode().unwrap(), "bodies/x").is_err(), "more origins than allowed");
    }
}
