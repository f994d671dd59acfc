//! Properties of what reads addresses, as functions of arbitrary bytes: for the fuzzer
//! (`fuzz/fuzz_targets/storage_url.rs`) and for the tests of this crate, which replay its corpus.

use std::os::unix::ffi::OsStrExt;

use backup_core::ErrorKind;

use super::{local_path, redacted};

/// An address is refused or is a path without NUL, the same again when it is written as an address; and nothing secret
/// in it is shown.
pub fn storage_url(bytes: &[u8]) {
    let Ok(url) = std::str::from_utf8(bytes) else { return };
    match local_path(url) {
        Ok(path) => {
            let path = path.as_os_str().as_bytes();
            if path != url.as_bytes() {
                assert!(path.starts_with(b"/") && !path.contains(&0), "{url}");
                let encoded: String = path.iter().map(|byte| format!("%{byte:02X}")).collect();
                // The slash that begins the path cannot be encoded.
                let again = local_path(&format!("file:///{}", &encoded[3..])).expect("what was read can be written");
                assert_eq!(again.as_os_str().as_bytes(), path);
            }
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Unsupported), "{error:?}");
        }
    }
    #[cfg(feature = "object-client")]
    bucket_address(url);
    let shown = redacted(url);
    assert_eq!(redacted(&shown), shown);
    // The same bytes around secrets, wherever an address has them.
    const SECRET: &str = "hunter2-correct-horse";
    if url.contains(SECRET) {
        return;
    }
    let middle = (0..=url.len() / 2).rev().find(|at| url.is_char_boundary(*at)).unwrap_or_default();
    let (user, rest) = url.split_at(middle);
    for url in [
        format!("s3://{user}:{SECRET}@{rest}"),
        format!("sftp://{user}{SECRET}@host/{rest}"),
        format!("https://host/{user}?{rest}{SECRET}"),
        format!("https://host/{user}#{rest}{SECRET}"),
        format!("https://{user}:{SECRET}@{rest}?{SECRET}#{SECRET}"),
        format!("s3://bucket/{user}?{rest}={SECRET}"),
    ] {
        assert!(!redacted(&url).contains(SECRET), "{url} is shown as {}", redacted(&url));
        if let Err(error) = local_path(&url) {
            assert!(!format!("{error} {error:?}").contains(SECRET), "{url}: {error:?}");
        }
        #[cfg(feature = "object-client")]
        if let Err(error) = crate::object::Address::parse(&url) {
            assert!(!format!("{error} {error:?}").contains(SECRET), "{url}: {error:?}");
        }
    }
}

/// The address of a bucket is refused or has one, and its prefix is one that no server or proxy changes.
#[cfg(feature = "object-client")]
fn bucket_address(url: &str) {
    match crate::object::Address::parse(url) {
        Ok(None) => {}
        Ok(Some(address)) => {
            assert!(!address.bucket.is_empty() && !address.bucket.contains(['/', '@', '?', '#']), "{url}");
            let is_plain = |component: &str| !matches!(component, "" | "." | "..");
            assert!(address.prefix.is_empty() || address.prefix.split('/').all(is_plain), "{url}");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}"),
    }
}
