//! Cases: made from the golden repository, published as what differs from it.

use std::sync::Arc;

use backup_core::repository::Repository;
use backup_core::storage::{Key, MemoryStorage};
use backup_core::testing;
use serde_json::{Value, json};

use crate::support::cbor::Item;
use crate::support::forger::{get, overwrite, replace_body};
use crate::support::vectors::{NOW, Objects, from_hex, hex, open};

/// "open", "list", "restore" or "verify", and the kind of the error or finding.
pub(crate) type Expected = (&'static str, &'static str);

pub(crate) struct Case {
    pub(crate) name: &'static str,
    value: Value,
}

/// The objects that differ from the golden repository; as a patch, where that is shorter.
pub(crate) fn difference(golden: &Objects, changed: &Objects) -> Value {
    let mut out = serde_json::Map::new();
    for (key, bytes) in changed {
        let value = match golden.get(key) {
            Some(before) if before == bytes => continue,
            Some(before) if before.len() == bytes.len() => {
                let first = before.iter().zip(bytes).position(|(a, b)| a != b).unwrap();
                let last = before.iter().zip(bytes).rposition(|(a, b)| a != b).unwrap();
                json!({ "at": first, "hex": hex(&bytes[first..=last]) })
            }
            Some(before) if before.starts_with(bytes) || is_extended(before, bytes) => json!({ "length": bytes.len() }),
            _ => json!({ "hex": hex(bytes) }),
        };
        out.insert(key.to_string(), value);
    }
    for key in golden.keys().filter(|key| !changed.contains_key(*key)) {
        out.insert(key.to_string(), Value::Null);
    }
    let value = Value::Object(out);
    assert!(apply(golden, &value) == *changed);
    value
}

fn is_extended(before: &[u8], bytes: &[u8]) -> bool {
    bytes.strip_prefix(before).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

pub(crate) fn apply(golden: &Objects, difference: &Value) -> Objects {
    let mut objects = golden.clone();
    for (name, change) in difference.as_object().unwrap() {
        let key = Key::new(name.as_str()).unwrap();
        if change.is_null() {
            objects.remove(&key).unwrap();
        } else if let Some(length) = change["length"].as_u64() {
            let mut bytes = objects[&key].to_vec();
            bytes.resize(usize::try_from(length).unwrap(), 0);
            objects.insert(key, bytes.into());
        } else if let Some(at) = change["at"].as_u64() {
            let (mut bytes, patch) = (objects[&key].to_vec(), from_hex(change["hex"].as_str().unwrap()));
            let at = usize::try_from(at).unwrap();
            bytes[at..at + patch.len()].copy_from_slice(&patch);
            objects.insert(key, bytes.into());
        } else {
            objects.insert(key, from_hex(change["hex"].as_str().unwrap()).into());
        }
    }
    objects
}

/// Collects cases.
pub(crate) struct Cases {
    pub(crate) golden: Objects,
    cases: Vec<Case>,
    /// The rule of "What a reader must reject" that following cases belong to.
    rule: u64,
}

impl Cases {
    pub(crate) fn new(golden: Objects) -> Self {
        Self { golden, cases: Vec::new(), rule: 0 }
    }

    pub(crate) fn published(self) -> Vec<(&'static str, Value)> {
        self.cases.into_iter().map(|case| (case.name, case.value)).collect()
    }

    /// Following cases break this rule of "What a reader must reject".
    pub(crate) fn rule(&mut self, number: u64) {
        self.rule = number;
    }

    pub(crate) fn first(&self, prefix: &str, ends: &str) -> Key {
        let mut keys = self.golden.keys();
        keys.find(|key| key.as_str().starts_with(prefix) && key.as_str().ends_with(ends)).unwrap().clone()
    }

    /// `change` works on the storage; what it returns is the name of what is wrong afterwards.
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        rule: &'static str,
        (operation, expect): Expected,
        change: impl FnOnce(&Arc<MemoryStorage>, &Repository) -> String,
    ) {
        let storage = Arc::new(MemoryStorage::from_objects(self.golden.clone()));
        // Randomness of its own, so that no two cases depend on each other.
        let seed = blake3::hash(name.as_bytes()).as_bytes()[..8].try_into().unwrap();
        let repository = open(&storage, u64::from_le_bytes(seed), NOW).unwrap();
        let object = change(&storage, &repository);
        let value = json!({
            "rule": rule,
            "rejects": self.rule,
            "object": object,
            "operation": operation,
            "expect": expect,
            "objects": difference(&self.golden, &storage.snapshot()),
        });
        self.cases.push(Case { name, value });
    }

    /// The bytes of one object change.
    pub(crate) fn edit(
        &mut self,
        name: &'static str,
        rule: &'static str,
        expected: Expected,
        key: &Key,
        change: impl FnOnce(&mut Vec<u8>),
    ) {
        self.add(name, rule, expected, |storage, _| {
            let mut bytes = get(storage, key);
            change(&mut bytes);
            overwrite(storage, key, bytes);
            key.to_string()
        });
    }

    /// The body of a sealed object changes, and all that names it follows.
    pub(crate) fn forge(
        &mut self,
        name: &'static str,
        rule: &'static str,
        expected: Expected,
        key: &Key,
        change: impl FnOnce(&mut Vec<u8>),
    ) {
        self.add(name, rule, expected, |storage, repository| {
            let mut body = testing::open_object(repository, key.as_str(), &get(storage, key)).unwrap();
            change(&mut body);
            replace_body(storage, repository, key, &body).to_string()
        });
    }

    /// A structured body changes in the way of [`forge`](Self::forge).
    pub(crate) fn forge_fields(
        &mut self,
        name: &'static str,
        rule: &'static str,
        expected: Expected,
        key: &Key,
        change: impl FnOnce(Item) -> Item,
    ) {
        self.forge(name, rule, expected, key, |body| *body = change(Item::decode(body)).encode());
    }
}
