//! What a storage needs beside its address.

use std::collections::BTreeMap;
use std::fmt;

use super::retry::RetryPolicy;

/// Settings and credentials, by the names of the environment variables that usually hold them, and how requests are
/// repeated.
///
/// Known are the variables of the clouds: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`,
/// `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, `AWS_VIRTUAL_HOSTED_STYLE_REQUEST`; `GOOGLE_SERVICE_ACCOUNT` and
/// `GOOGLE_APPLICATION_CREDENTIALS`; `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_SAS_TOKEN`,
/// and the others that the crate `object_store` describes.
#[derive(Clone, Default)]
pub struct ObjectOptions {
    variables: BTreeMap<String, String>,
    retry: RetryPolicy,
}

impl ObjectOptions {
    /// Settings and credentials from the environment of this process.
    #[must_use]
    pub fn from_environment() -> Self {
        let text = |text: std::ffi::OsString| text.into_string().ok();
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).filter(|(name, _)| {
                // With a prefix of the address before it.
                ["AWS_", "GOOGLE_", "AZURE_", "IDENTITY_ENDPOINT"].iter().any(|beginning| name.contains(beginning))
            });
        Self { variables: variables.collect(), retry: RetryPolicy::default() }
    }

    /// One more setting, or another value for it.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// How requests are repeated.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    pub(super) const fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    /// The settings whose names begin with `prefix` and `beginning`, named without the prefix.
    pub(super) fn variables(&self, prefix: &str, beginning: &str) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().filter_map(move |(name, value)| {
            let name = name.strip_prefix(prefix)?;
            name.starts_with(beginning).then_some((name, value.as_str()))
        })
    }
}

/// Values may be secret, so only names are shown.
impl fmt::Debug for ObjectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectOptions").field("variables", &self.variables.keys()).field("retry", &self.retry).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_choose_among_variables_and_values_are_not_shown() {
        let options = ObjectOptions::default()
            .with_variable("AWS_REGION", "one")
            .with_variable("OFFSITE_AWS_REGION", "two")
            .with_variable("AWS_SECRET_ACCESS_KEY", "hunter2");
        let named = |prefix: &str| options.variables(prefix, "AWS_").collect::<Vec<_>>();
        assert_eq!(named("OFFSITE_"), [("AWS_REGION", "two")]);
        assert_eq!(named(""), [("AWS_REGION", "one"), ("AWS_SECRET_ACCESS_KEY", "hunter2")]);
        let shown = format!("{options:?}");
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hunter2"), "{shown}");
    }
}
