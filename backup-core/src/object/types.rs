//! Types of sealed objects.

use crate::limits;

/// What a sealed object holds. The number of the type is part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum ObjectType {
    /// The long-lived secrets.
    Keyring = 1,
    /// Chunks of contents.
    DataPack = 2,
    /// Chunks of metadata: pages of contents and catalogues.
    MetaPack = 3,
    /// Where chunks stand.
    Index = 4,
    /// What a backup holds.
    Body = 5,
}

impl ObjectType {
    #[cfg(any(test, feature = "testing"))]
    /// Every type, in order of its number.
    pub(crate) const ALL: [Self; 5] = [Self::Keyring, Self::DataPack, Self::MetaPack, Self::Index, Self::Body];

    /// The number in the header.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Keyring => 1,
            Self::DataPack => 2,
            Self::MetaPack => 3,
            Self::Index => 4,
            Self::Body => 5,
        }
    }

    /// What errors call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Keyring => "keyring",
            Self::DataPack | Self::MetaPack => "pack",
            Self::Index => "index segment",
            Self::Body => "backup body",
        }
    }

    /// The largest object of this type, in bytes.
    pub(crate) const fn limit(self) -> u64 {
        match self {
            Self::Keyring => limits::KEYRING,
            Self::DataPack | Self::MetaPack => limits::PACK,
            Self::Index => limits::INDEX,
            Self::Body => limits::BODY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_consecutive() {
        for (position, kind) in ObjectType::ALL.iter().enumerate() {
            assert_eq!(usize::from(kind.number()), position + 1);
            assert_eq!(*kind as u8, kind.number());
        }
    }
}
