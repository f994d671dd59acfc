//! Opening: whole objects, or the frames that cover a range.

use std::fmt;
use std::ops::Range;

use subtle::ConstantTimeEq;

use crate::crypto::{AeadProvider, hash};
use crate::error::{Error, Result};
use crate::format::header::{Header, TAG_LENGTH};
use crate::id::{ObjectName, RepositoryId};
use crate::length::{self, to_u64};
use crate::object::keys::{FrameKey, frame_nonce};
use crate::object::seal::LENGTH_PREFIX;
use crate::object::types::ObjectType;

/// The name of an object with these bytes.
pub(crate) fn name_of(bytes: &[u8]) -> ObjectName {
    hash::object_name(bytes)
}

/// Requires that `bytes` are the object `name`, stored under `key`.
///
/// # Errors
///
/// [`Error::Damaged`].
pub(crate) fn verify_name(what: &'static str, key: &str, name: &ObjectName, bytes: &[u8]) -> Result<()> {
    if name_of(bytes) == *name {
        Ok(())
    } else {
        Err(Error::damaged(what, key, "its bytes do not have the hash that is its name"))
    }
}

/// An object whose header was checked and whose key is known.
pub(crate) struct ObjectReader {
    kind: ObjectType,
    /// The storage key, for errors.
    name: String,
    header: Header,
    key: FrameKey,
}

impl ObjectReader {
    /// Checks the header against what the object must be, derives its key and checks the commitment.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] or [`Error::Unsupported`] naming the object.
    pub(crate) fn new(
        kind: ObjectType,
        name: &str,
        header: Header,
        repository: RepositoryId,
        base_key: &[u8; 32],
        provider: &dyn AeadProvider,
    ) -> Result<Self> {
        let damaged = |reason: &str| Error::damaged(kind.name(), name, reason);
        if header.repository != repository {
            return Err(damaged("belongs to another repository"));
        }
        if header.kind != kind.number() {
            return Err(damaged("is an object of another type"));
        }
        if header.object_size() > kind.limit() {
            return Err(Error::limit(format!("size of {} {name}", kind.name()), header.object_size(), kind.limit()));
        }
        let key = FrameKey::derive(&header, base_key, provider)?;
        if !bool::from(key.commitment().ct_eq(&header.commitment)) {
            return Err(damaged("its header is not one that the keys of this repository have made"));
        }
        Ok(Self { kind, name: name.to_owned(), header, key })
    }

    #[cfg(test)]
    /// The session that wrote the object.
    pub(crate) fn session(&self) -> crate::id::SessionId {
        self.header.session
    }

    /// Bytes of plaintext in all frames, with the length before the body and the padding behind it.
    pub(crate) fn plaintext_size(&self) -> u64 {
        self.header.plaintext_size()
    }

    /// The largest body that the frames can hold.
    pub(crate) fn body_capacity(&self) -> u64 {
        self.plaintext_size().saturating_sub(LENGTH_PREFIX)
    }

    /// The range of the object that [`Self::body_length`] needs.
    pub(crate) fn length_span(&self) -> Range<u64> {
        self.header.frame_offset(0)..self.header.frame_offset(1)
    }

    /// The length of the body, from the bytes of [`Self::length_span`].
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub(crate) fn body_length(&self, ciphertext: &[u8]) -> Result<u64> {
        let mut plain = Vec::new();
        self.open_frames(0, 1, ciphertext, &mut plain)?;
        self.parse_length(&plain)
    }

    /// The range of the object whose frames cover `body` (a range of the body).
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where the object is too small for the range: whoever asks got it from an
    /// index or directory that says otherwise.
    pub(crate) fn span(&self, body: &Range<u64>) -> Result<Range<u64>> {
        let frames = self.frames_of(body)?;
        Ok(self.header.frame_offset(frames.start)..self.header.frame_offset(frames.end))
    }

    /// Exactly the bytes `body` of the body, from the bytes of [`Self::span`].
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub(crate) fn open_span(&self, body: &Range<u64>, ciphertext: &[u8]) -> Result<Vec<u8>> {
        let frames = self.frames_of(body)?;
        let Some(after_first) = frames.start.checked_add(1).filter(|after_first| *after_first <= frames.end) else {
            return if ciphertext.is_empty() { Ok(Vec::new()) } else { Err(self.wrong_amount()) };
        };
        // What stands before the range is removed after the first frame, so that at most one frame moves.
        let begin = body.start.saturating_add(LENGTH_PREFIX);
        let skipped = begin.saturating_sub(u64::from(frames.start).saturating_mul(self.header.frame_size()));
        let split = length::to_usize(self.header.frame_size().saturating_add(TAG_LENGTH), "size of a frame")?;
        let (first, rest) = ciphertext.split_at_checked(split).ok_or_else(|| self.wrong_amount())?;
        let capacity = u64::from(frames.end.saturating_sub(frames.start)).saturating_mul(self.header.frame_size());
        let mut plain = Vec::with_capacity(length::to_usize(capacity, "size of a range")?);
        self.open_frames(frames.start, after_first, first, &mut plain)?;
        if frames.start == 0 && self.parse_length(&plain)? < body.end {
            return Err(self.damaged("ends before a range that should be in it"));
        }
        plain.drain(..length::to_usize(skipped, "size of a frame")?.min(plain.len()));
        self.open_frames(after_first, frames.end, rest, &mut plain)?;
        plain.truncate(length::to_usize(body.end.saturating_sub(body.start), "size of a range")?);
        Ok(plain)
    }

    /// The whole body, from the whole object.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub(crate) fn open_all(&self, object: &[u8]) -> Result<Vec<u8>> {
        let first = length::to_usize(self.header.frame_offset(0), "size of a header")?;
        let second = length::to_usize(self.header.frame_offset(1), "size of a frame")?;
        let (Some(head), Some(rest)) = (object.get(first..second), object.get(second..)) else {
            return Err(self.wrong_amount());
        };
        // The header's formula holds for the object, so this is less than what is in memory already.
        let mut plain = Vec::with_capacity(length::to_usize(self.plaintext_size(), "size of an object")?);
        self.open_frames(0, 1, head, &mut plain)?;
        let body_length = length::to_usize(self.parse_length(&plain)?, "size of an object")?;
        plain.drain(..length::to_usize(LENGTH_PREFIX, "size of a prefix")?.min(plain.len()));
        self.open_frames(1, self.header.frames, rest, &mut plain)?;
        if plain.get(body_length..).is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
            return Err(self.damaged("its padding is not zero"));
        }
        plain.truncate(body_length);
        Ok(plain)
    }

    /// Appends the plaintext of the frames `from..to`, whose bytes are exactly `ciphertext`.
    fn open_frames(&self, from: u32, to: u32, ciphertext: &[u8], plain: &mut Vec<u8>) -> Result<()> {
        let stored = self.header.frame_size().saturating_add(TAG_LENGTH);
        if to_u64(ciphertext.len()) != u64::from(to.saturating_sub(from)).saturating_mul(stored) {
            return Err(self.wrong_amount());
        }
        let stored = length::to_usize(stored, "size of a frame")?;
        for (frame, sealed) in (from..to).zip(ciphertext.chunks(stored)) {
            let (cipher, tag) = sealed.split_last_chunk::<16>().ok_or_else(|| self.wrong_amount())?;
            let start = plain.len();
            plain.extend_from_slice(cipher);
            let buffer = plain.get_mut(start..).ok_or(Error::Internal("a frame outside its buffer"))?;
            let nonce = frame_nonce(self.key.iv(), frame, self.header.frames);
            if !self.key.aead().open(&nonce, buffer, tag) {
                plain.truncate(start);
                return Err(self.damaged(format!("frame {frame} is not authentic")));
            }
        }
        Ok(())
    }

    /// The frames that cover a range of the body; none for an empty one.
    #[expect(clippy::arithmetic_side_effects, reason = "a frame has at least 4 KiB")]
    fn frames_of(&self, body: &Range<u64>) -> Result<Range<u32>> {
        if body.start > body.end || body.end > self.body_capacity() {
            return Err(self.damaged("is too small for a range that should be in it"));
        }
        let size = self.header.frame_size();
        let number = |frame: u64| u32::try_from(frame).map_err(|_| Error::Internal("a frame beyond the last"));
        let start = number(body.start.saturating_add(LENGTH_PREFIX) / size)?;
        let end = number(body.end.saturating_add(LENGTH_PREFIX).div_ceil(size))?;
        Ok(if body.start == body.end { 0..0 } else { start..end })
    }

    fn parse_length(&self, first_frame: &[u8]) -> Result<u64> {
        let length = first_frame.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        length
            .filter(|length| *length <= self.body_capacity())
            .ok_or_else(|| self.damaged("its body is said to be longer than its frames"))
    }

    fn wrong_amount(&self) -> Error {
        self.damaged("the storage delivered another number of bytes than asked for")
    }

    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::damaged(self.kind.name(), &self.name, reason)
    }
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectReader({} {})", self.kind.name(), self.name)
    }
}
