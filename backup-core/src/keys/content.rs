//! Keys of the dedup domain: chunk ids and every boundary that depends on contents.

use crate::crypto::hash;
use crate::error::Result;
use crate::id::ChunkId;
use crate::object::dedup_root;
use crate::secret::Secret;

/// What equal contents are recognized with. All backups of a repository share it.
#[derive(Debug)]
pub(crate) struct ContentKeys {
    data: Secret<32>,
    meta: Secret<32>,
    gear: Secret<2048>,
    page: Secret<32>,
}

impl ContentKeys {
    /// Derives all of them from the dedup key.
    pub(crate) fn derive(dedup: &Secret<32>) -> Result<Self> {
        let root = dedup_root(dedup);
        Ok(Self {
            data: root.expand(&[b"backup/v1/chunk-id/data"])?,
            meta: root.expand(&[b"backup/v1/chunk-id/meta"])?,
            gear: root.expand(&[b"backup/v1/chunker/gear"])?,
            page: root.expand(&[b"backup/v1/content/page"])?,
        })
    }

    /// The id of a chunk of content.
    pub(crate) fn data_id(&self, plaintext: &[u8]) -> ChunkId {
        hash::chunk_id(self.data.expose(), plaintext)
    }

    /// The id of a chunk of metadata (a page).
    pub(crate) fn meta_id(&self, plaintext: &[u8]) -> ChunkId {
        hash::chunk_id(self.meta.expose(), plaintext)
    }

    #[cfg(any(test, feature = "testing"))]
    /// The key of [`Self::data_id`].
    pub(crate) fn data_id_key(&self) -> &[u8; 32] {
        self.data.expose()
    }

    #[cfg(any(test, feature = "testing"))]
    /// The key of [`Self::meta_id`].
    pub(crate) fn meta_id_key(&self) -> &[u8; 32] {
        self.meta.expose()
    }

    /// The table of the stream chunker: 256 little-endian numbers of 64 bits.
    pub(crate) fn gear(&self) -> &[u8; 2048] {
        self.gear.expose()
    }

    /// The key of the page boundaries of catalogues.
    pub(crate) fn page_boundary(&self) -> &[u8; 32] {
        self.page.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_metadata_are_apart_and_depend_on_the_dedup_key() {
        let keys = ContentKeys::derive(&Secret::copy_of(&[1; 32])).unwrap();
        let others = ContentKeys::derive(&Secret::copy_of(&[2; 32])).unwrap();
        assert_ne!(keys.data_id(b"x"), keys.meta_id(b"x"));
        assert_ne!(keys.data_id(b"x"), others.data_id(b"x"));
        assert_eq!(keys.data_id(b"x"), hash::chunk_id(keys.data_id_key(), b"x"));
        assert_eq!(keys.meta_id(b"x"), hash::chunk_id(keys.meta_id_key(), b"x"));
        assert_ne!(keys.gear(), others.gear());
        assert_ne!(keys.page_boundary(), others.page_boundary());
    }
}
