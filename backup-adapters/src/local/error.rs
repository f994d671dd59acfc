//! What the operating system says, as a [`StorageError`].

use std::io;

use backup_core::storage::StorageError;
use rustix::io::Errno;

/// An error of a change, or of anything where absence is not an answer.
pub(super) fn writing(error: io::Error) -> StorageError {
    match Errno::from_io_error(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => StorageError::Full(error.into()),
        Some(Errno::ROFS) => StorageError::ReadOnly,
        Some(Errno::ACCESS | Errno::PERM) => StorageError::PermissionDenied(error.into()),
        _ => StorageError::Other(error.into()),
    }
}

/// An error of looking for an object: a missing directory and a file in its place mean that it does not exist.
pub(super) fn reading(error: io::Error) -> StorageError {
    if is_absent(&error) { StorageError::NotFound } else { writing(error) }
}

/// Whether the error says that there is nothing of this path.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_and_keep_their_source() {
        let map = |errno: Errno| writing(errno.into());
        assert!(matches!(map(Errno::NOSPC), StorageError::Full(_)));
        assert!(matches!(map(Errno::DQUOT), StorageError::Full(_)));
        assert!(matches!(map(Errno::ROFS), StorageError::ReadOnly));
        assert!(matches!(map(Errno::ACCESS), StorageError::PermissionDenied(_)));
        assert!(matches!(map(Errno::PERM), StorageError::PermissionDenied(_)));
        assert!(matches!(map(Errno::NOENT), StorageError::Other(_)), "a put never says that it found nothing");
        assert!(matches!(reading(Errno::NOENT.into()), StorageError::NotFound));
        assert!(matches!(reading(Errno::NOTDIR.into()), StorageError::NotFound));
        let error = reading(Errno::IO.into());
        let source = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.raw_os_error(), Some(Errno::IO.raw_os_error()));
    }
}
