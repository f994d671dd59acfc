//! Where a repository is: cloud, bucket, prefix.

use backup_core::{Error, Result};

use crate::url::{percent_decoded, redacted, split_scheme};

/// Who keeps the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cloud {
    /// Amazon S3 and what speaks its protocol: `s3://bucket/prefix`.
    S3,
    /// Google Cloud Storage: `gs://bucket/prefix`.
    Google,
    /// Azure Blob Storage: `az://container/prefix`.
    Azure,
}

/// An address of a bucket, as `s3://bucket/prefix?region=eu-central-1`.
///
/// The query may say what else would come from the environment, for programs that work with two places at once:
///
/// * `endpoint`: address of the server (S3 and Azure);
/// * `region` (S3);
/// * `account` (Azure);
/// * `environment`: a prefix for the names of all environment variables: with `environment=OFFSITE_`, credentials are
///   `OFFSITE_AWS_ACCESS_KEY_ID` and so on, and `AWS_ACCESS_KEY_ID` is not looked at.
///
/// Credentials are refused there: addresses are shown in lists of processes and in logs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Address {
    /// Who keeps the bucket.
    pub cloud: Cloud,
    /// The bucket or container.
    pub bucket: String,
    /// What all keys begin with, without slashes around it; may be empty.
    pub prefix: String,
    /// The server, where the address names it.
    pub endpoint: Option<String>,
    /// The region, where the address names it.
    pub region: Option<String>,
    /// The account of Azure, where the address names it.
    pub account: Option<String>,
    /// What the names of environment variables begin with; mostly empty.
    pub environment: String,
}

impl Address {
    /// Reads an address. `None` where its scheme is none of object storage.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`]; shows nothing of the address that could be secret.
    pub fn parse(url: &str) -> Result<Option<Self>> {
        let Some((scheme, rest)) = split_scheme(url) else { return Ok(None) };
        let cloud = match scheme.to_ascii_lowercase().as_str() {
            "s3" => Cloud::S3,
            "gs" => Cloud::Google,
            "az" => Cloud::Azure,
            _ => return Ok(None),
        };
        let invalid = |reason: &str| Error::InvalidArgument {
            what: format!("storage address {:?}", redacted(url)),
            reason: reason.to_owned(),
        };
        if rest.contains('#') {
            return Err(invalid("a # is written %23"));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        if place.contains('@') {
            return Err(invalid("credentials do not belong into an address; they come from the environment"));
        }
        let (bucket, path) = place.split_once('/').unwrap_or((place, ""));
        let is_bucket = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if bucket.is_empty() || !bucket.bytes().all(is_bucket) {
            return Err(invalid("behind the scheme stands the name of a bucket: letters, digits, dots, hyphens"));
        }
        let prefix = prefix(path).ok_or_else(|| {
            invalid("the prefix has an empty component, a dot or two dots as a component, or what is not text")
        })?;
        let mut address = Self {
            cloud,
            bucket: bucket.to_owned(),
            prefix,
            endpoint: None,
            region: None,
            account: None,
            environment: String::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value)
                .and_then(|value| String::from_utf8(value).ok())
                .filter(|value| !value.is_empty() && !value.chars().any(char::is_control))
                .ok_or_else(|| invalid("a parameter has no value, or one that is not text"))?;
            let known = match (name, cloud) {
                ("endpoint", Cloud::S3 | Cloud::Azure) => address.endpoint.replace(value).is_none(),
                ("region", Cloud::S3) => address.region.replace(value).is_none(),
                ("account", Cloud::Azure) => address.account.replace(value).is_none(),
                ("environment", _) if is_variable(&value) => {
                    std::mem::replace(&mut address.environment, value).is_empty()
                }
                _ => false,
            };
            if !known {
                return Err(invalid(
                    "known parameters, each once, are endpoint (s3, az), region (s3), account (az) and environment",
                ));
            }
        }
        if address.endpoint.as_deref().is_some_and(|endpoint| endpoint.contains('@')) {
            return Err(invalid("credentials do not belong into an endpoint; they come from the environment"));
        }
        Ok(Some(address))
    }
}

/// The characters of names of environment variables.
fn is_variable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The path of an address as the beginning of keys; `None` for what servers or proxies would change.
fn prefix(path: &str) -> Option<String> {
    let decoded = String::from_utf8(percent_decoded(path)?).ok()?;
    let prefix = decoded.strip_suffix('/').unwrap_or(&decoded);
    let is_component =
        |component: &str| !matches!(component, "" | "." | "..") && !component.chars().any(char::is_control);
    (prefix.is_empty() || prefix.split('/').all(is_component)).then(|| prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Address {
        Address::parse(url).unwrap().unwrap()
    }

    #[test]
    fn buckets_and_prefixes() {
        for (url, cloud, bucket, prefix) in [
            ("s3://bucket", Cloud::S3, "bucket", ""),
            ("s3://bucket/", Cloud::S3, "bucket", ""),
            ("S3://my-bucket.2/a/b", Cloud::S3, "my-bucket.2", "a/b"),
            ("gs://bucket/a/b/", Cloud::Google, "bucket", "a/b"),
            ("az://container/a%20b/%C3%A4", Cloud::Azure, "container", "a b/ä"),
        ] {
            let address = parse(url);
            assert_eq!((address.cloud, &*address.bucket, &*address.prefix), (cloud, bucket, prefix), "{url}");
            assert!(address.environment.is_empty() && address.endpoint.is_none(), "{url}");
        }
        for other in ["/s3/bucket", "bucket", "file:///x", "https://bucket/x"] {
            assert_eq!(Address::parse(other).unwrap(), None, "{other}");
        }
    }

    #[test]
    fn parameters() {
        let address = parse("s3://b/p?endpoint=https%3A%2F%2Fs3.example.org:9000&region=eu-1&environment=OFFSITE_");
        assert_eq!(address.endpoint.as_deref(), Some("https://s3.example.org:9000"));
        assert_eq!((address.region.as_deref(), &*address.environment), (Some("eu-1"), "OFFSITE_"));
        assert_eq!(parse("az://c?account=name").account.as_deref(), Some("name"));
    }

    #[test]
    fn what_is_refused_shows_no_secret() {
        for url in [
            "s3://",
            "s3:///prefix",
            "s3://bu cket/x",
            "s3://key:hunter2@bucket/x",
            "s3://bucket/x?secret_access_key=hunter2",
            "s3://bucket/x?endpoint=https://key:hunter2@host",
            "s3://bucket/x?region=a&region=hunter2",
            "s3://bucket/x?environment=hunter2%3D",
            "s3://bucket/x?region=",
            "gs://bucket/x?region=hunter2",
            "s3://bucket/x#hunter2",
            "s3://bucket//x",
            "s3://bucket/a/../b",
            "s3://bucket/a//",
            "s3://bucket/%ff",
            "s3://bucket/%00",
            "s3://bucket/%zz",
        ] {
            let error = Address::parse(url).expect_err(url);
            assert!(matches!(error, Error::InvalidArgument { .. }), "{url}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}: {error}");
        }
    }
}
