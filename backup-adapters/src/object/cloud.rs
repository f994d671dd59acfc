//! Clients of the clouds, made from an address and the environment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Error, Result};
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::address::{Address, Cloud};
use super::options::ObjectOptions;

/// Everything that a bucket is asked for.
pub(super) trait Bucket: ObjectStore + PaginatedListStore + MultipartStore {}

impl<B: ObjectStore + PaginatedListStore + MultipartStore> Bucket for B {}

/// Time to reach the server. There is no time for whole requests here: it depends on how much they carry
/// (`RetryPolicy::time_for`).
const CONNECT: Duration = Duration::from_secs(15);

/// The client for `address`. It repeats nothing by itself: what may be repeated, and what a repetition means, is
/// decided in one place (`retry.rs`).
pub(super) fn open(address: &Address, options: &ObjectOptions) -> Result<Arc<dyn Bucket>> {
    let client = ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT);
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    match address.cloud {
        #[cfg(feature = "s3")]
        Cloud::S3 => s3(address, options, client, once),
        #[cfg(feature = "gs")]
        Cloud::Google => google(address, options, client, once),
        #[cfg(feature = "az")]
        Cloud::Azure => azure(address, options, client, once),
        #[cfg(not(all(feature = "s3", feature = "gs", feature = "az")))]
        cloud => {
            let _ = (options, client, once);
            Err(missing(cloud))
        }
    }
}

/// The error of a cloud that was left out of this program.
#[cfg(not(all(feature = "s3", feature = "gs", feature = "az")))]
fn missing(cloud: Cloud) -> Error {
    let (scheme, feature) = match cloud {
        Cloud::S3 => ("s3", "s3"),
        Cloud::Google => ("gs", "gs"),
        Cloud::Azure => ("az", "az"),
    };
    Error::Unsupported {
        what: "storage address",
        name: format!("{scheme}://: this program was built without the feature \"{feature}\" of backup-adapters"),
    }
}

#[cfg(feature = "s3")]
fn s3(address: &Address, options: &ObjectOptions, client: ClientOptions, once: RetryConfig) -> Result<Arc<dyn Bucket>> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

    let mut builder = AmazonS3Builder::new()
        .with_client_options(client)
        .with_retry(once)
        // One object at a time is deleted, and not every server knows the request for many.
        .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
    let mut endpoint = address.endpoint.clone();
    let mut plain = false;
    for (name, value) in options.variables(&address.environment, "AWS_") {
        let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
        match key {
            AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint => {
                endpoint = endpoint.or_else(|| Some(value.to_owned()));
            }
            AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp) => plain = is_yes(value),
            _ => {}
        }
        builder = builder.with_config(key, value);
    }
    builder = builder.with_bucket_name(&address.bucket);
    if let Some(endpoint) = &address.endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = &address.region {
        builder = builder.with_region(region);
    }
    if !plain {
        refuse_plain(endpoint.as_deref(), &format!("{}AWS_ALLOW_HTTP", address.environment))?;
    }
    built(builder.build(), address)
}

#[cfg(feature = "gs")]
fn google(
    address: &Address,
    options: &ObjectOptions,
    client: ClientOptions,
    once: RetryConfig,
) -> Result<Arc<dyn Bucket>> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

    let mut builder = GoogleCloudStorageBuilder::new().with_client_options(client).with_retry(once);
    for (name, value) in options.variables(&address.environment, "GOOGLE_") {
        if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    built(builder.with_bucket_name(&address.bucket).build(), address)
}

#[cfg(feature = "az")]
fn azure(
    address: &Address,
    options: &ObjectOptions,
    client: ClientOptions,
    once: RetryConfig,
) -> Result<Arc<dyn Bucket>> {
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

    let mut builder = MicrosoftAzureBuilder::new().with_client_options(client).with_retry(once);
    let mut endpoint = address.endpoint.clone();
    let mut plain = false;
    for (name, value) in options.variables(&address.environment, "AZURE_") {
        let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() else { continue };
        match key {
            AzureConfigKey::Endpoint => endpoint = endpoint.or_else(|| Some(value.to_owned())),
            AzureConfigKey::Client(object_store::ClientConfigKey::AllowHttp) => plain = is_yes(value),
            _ => {}
        }
        builder = builder.with_config(key, value);
    }
    // Where a machine of this cloud gets its credentials.
    if let Some((_, endpoint)) = options.variables(&address.environment, "IDENTITY_ENDPOINT").next() {
        builder = builder.with_msi_endpoint(endpoint);
    }
    builder = builder.with_container_name(&address.bucket);
    if let Some(account) = &address.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &address.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if !plain {
        refuse_plain(endpoint.as_deref(), &format!("{}AZURE_ALLOW_HTTP", address.environment))?;
    }
    built(builder.build(), address)
}

/// As the library reads it.
#[cfg(any(feature = "s3", feature = "az"))]
fn is_yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y")
}

/// Without TLS anybody on the way can read names and sizes, and repeat requests for a while. So it must be asked for.
#[cfg(any(feature = "s3", feature = "az"))]
fn refuse_plain(endpoint: Option<&str>, variable: &str) -> Result<()> {
    if endpoint.is_some_and(|endpoint| endpoint.to_ascii_lowercase().starts_with("http://")) {
        return Err(Error::InvalidArgument {
            what: "endpoint of the storage".into(),
            reason: format!("it is not encrypted (http); where that is wanted, set {variable}=true"),
        });
    }
    Ok(())
}

fn built<B: Bucket>(built: object_store::Result<B>, address: &Address) -> Result<Arc<dyn Bucket>> {
    match built {
        Ok(bucket) => Ok(Arc::new(bucket)),
        Err(error) => Err(Error::InvalidArgument {
            what: format!("configuration of the storage for bucket {}", address.bucket),
            reason: reason(&error),
        }),
    }
}

/// The innermost cause: what is around it names the library.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        })
    }
}
