//! What servers and connections say, as errors of the storage that name who must act.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use backup_core::storage::StorageError;
use object_store::client::HttpError;

/// How much of a server's own words is repeated.
const LONGEST_MESSAGE: usize = 300;

/// A request that failed once.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    words: String,
    cause: Option<object_store::Error>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no such object.
    NotFound,
    /// The condition of the request did not hold, or another request was in its way.
    Exists,
    /// The range lies beyond the object.
    Range,
    /// The server refuses this client.
    Denied,
    /// Nothing more fits.
    Full,
    /// It may pass. The request may have been carried out nevertheless.
    Passing,
    /// Anything else.
    Other,
}

impl Problem {
    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) const fn may_pass(&self) -> bool {
        matches!(self.kind, Kind::Passing)
    }

    /// As the answer to a put: nothing is looked for there but the bucket, and nothing must be absent unless that was
    /// asked for, which is dealt with before.
    pub(super) fn of_put(mut self) -> Self {
        match self.kind {
            Kind::NotFound => {
                self.kind = Kind::Other;
                self.words = "the bucket does not exist".to_owned();
            }
            Kind::Exists => {
                self.kind = Kind::Passing;
                self.words = "another request for the same object was under way".to_owned();
            }
            _ => {}
        }
        self
    }

    /// A try that took too long.
    pub(super) fn timeout(time: Duration) -> Self {
        Self::passing(format!("no answer within {} s", time.as_secs()))
    }

    pub(super) fn passing(words: impl Into<String>) -> Self {
        Self { kind: Kind::Passing, words: words.into(), cause: None }
    }

    /// The error of the storage after so many tries.
    pub(super) fn into_storage_error(self, tries: u32) -> StorageError {
        let Self { kind, mut words, cause } = self;
        if tries > 1 {
            words.push_str(&format!(" (tried {tries} times)"));
        }
        let error = Box::new(Failure { words, cause });
        match kind {
            Kind::NotFound => StorageError::NotFound,
            Kind::Exists => StorageError::AlreadyExists,
            Kind::Denied => StorageError::PermissionDenied(error),
            Kind::Full => StorageError::Full(error),
            Kind::Passing => StorageError::Transient(error),
            Kind::Range | Kind::Other => StorageError::Other(error),
        }
    }
}

/// The words for people; the library's own error stays behind [`fmt::Debug`], as it repeats whole documents.
struct Failure {
    words: String,
    cause: Option<object_store::Error>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{:?} ({cause})", self.words),
            None => write!(f, "{:?}", self.words),
        }
    }
}

impl Error for Failure {}

impl From<object_store::Error> for Problem {
    fn from(error: object_store::Error) -> Self {
        let seen = Seen::of(&error);
        let (kind, words) = seen.judge(&error);
        Self { kind, words, cause: Some(error) }
    }
}

/// What can be found in the causes of an error.
#[derive(Debug, Default)]
struct Seen {
    /// Status of the server's answer.
    status: Option<u16>,
    /// The server's name of the error, as `SlowDown`.
    code: String,
    /// The server's words.
    message: String,
    /// The connection failed, with its words.
    connection: Option<String>,
    /// The innermost cause.
    innermost: String,
}

/// How the library begins the text of an answer that is a failure. The number and the answer's body follow.
const STATUS: &str = "Server returned non-2xx status code: ";

impl Seen {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut seen = Self::default();
        let mut next = Some(error);
        while let Some(error) = next {
            seen.innermost = error.to_string();
            if let Some(answer) = seen.innermost.strip_prefix(STATUS) {
                seen.status = answer.get(..3).and_then(|number| number.parse().ok());
                seen.code = element(answer, "Code");
                seen.message = element(answer, "Message");
            }
            if error.is::<HttpError>() {
                seen.connection = Some(String::new());
            }
            next = error.source();
        }
        if let Some(words) = &mut seen.connection {
            *words = seen.innermost.clone();
        }
        seen
    }

    fn judge(&self, error: &object_store::Error) -> (Kind, String) {
        let code = self.code.as_str();
        if matches!(code, "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName") {
            return (Kind::Other, self.with_server("the bucket does not exist"));
        }
        if code == "RequestTimeTooSkewed" {
            return (
                Kind::Other,
                self.with_server("the clock of this machine is too far from the server's: set it right"),
            );
        }
        if matches!(code, "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException") {
            return (Kind::Denied, self.with_server("the credentials have expired"));
        }
        if self.status == Some(409) && matches!(code, "ConditionalRequestConflict" | "OperationAborted") {
            return (Kind::Passing, self.with_server("another request for the same object was under way"));
        }
        match error {
            object_store::Error::NotFound { .. } => return (Kind::NotFound, "no such object".to_owned()),
            object_store::Error::AlreadyExists { .. }
            | object_store::Error::Precondition { .. }
            | object_store::Error::NotModified { .. } => return (Kind::Exists, "the object exists already".to_owned()),
            _ => {}
        }
        match self.status {
            Some(416) => (Kind::Range, "the range lies beyond the object".to_owned()),
            Some(401) => (Kind::Denied, self.with_server("the credentials are not accepted")),
            Some(_) if is_wrong_credential(code) => {
                (Kind::Denied, self.with_server("the credentials are not accepted"))
            }
            Some(403) => (Kind::Denied, self.with_server("access is denied")),
            Some(507) => (Kind::Full, self.with_server("no space or quota is left")),
            Some(_) if matches!(code, "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage") => {
                (Kind::Full, self.with_server("no space or quota is left"))
            }
            Some(429) => (Kind::Passing, self.with_server("the server throttles requests")),
            Some(503) if matches!(code, "SlowDown" | "ServerBusy" | "ServiceUnavailable" | "") => {
                (Kind::Passing, self.with_server("the server throttles requests or is not available"))
            }
            // What is not implemented will not be a moment later.
            Some(501) => (Kind::Other, self.with_server("the server cannot do what is needed")),
            Some(408 | 409 | 500..=599) => (Kind::Passing, self.with_server("the server failed")),
            Some(300..=399) => (Kind::Other, self.with_server("the bucket is elsewhere: check region and endpoint")),
            Some(_) => (Kind::Other, self.with_server("the server refused the request")),
            None if self.asked_for_credentials(error) => (
                Kind::Denied,
                "no credentials: none are set in the environment, and the cloud's metadata service gives none"
                    .to_owned(),
            ),
            None => match &self.connection {
                Some(words) => (Kind::Passing, format!("the connection failed: {}", shortened(words))),
                None => (Kind::Other, shortened(&self.innermost)),
            },
        }
    }

    /// Whether the request that failed was one for credentials: the address of metadata services is in its text.
    fn asked_for_credentials(&self, error: &object_store::Error) -> bool {
        let text = error.to_string();
        text.contains("169.254.169.254") || text.contains("metadata.google.internal")
    }

    /// `words` and what the server said.
    fn with_server(&self, words: &str) -> String {
        let status = self.status.map(|status| status.to_string()).unwrap_or_default();
        let detail: Vec<&str> =
            [status.as_str(), &self.code, &self.message].into_iter().filter(|text| !text.is_empty()).collect();
        if detail.is_empty() { words.to_owned() } else { format!("{words} ({})", detail.join(", ")) }
    }
}

fn is_wrong_credential(code: &str) -> bool {
    matches!(
        code,
        "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "InvalidSecurity"
            | "AuthenticationFailed"
            | "InvalidAuthenticationInfo"
            | "AuthorizationHeaderMalformed"
    )
}

/// The text of the first element of this name: errors of all clouds are small XML documents.
fn element(document: &str, name: &str) -> String {
    let inner = document
        .split_once(&format!("<{name}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{name}>")))
        .map_or("", |(inner, _)| inner);
    shortened(inner)
}

/// On one line, without control characters, and not endless.
fn shortened(text: &str) -> String {
    let line = text.split(|character: char| character.is_control() || character == '\u{2028}').map(str::trim);
    let line = line.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server answers, as the library reports it.
    fn answered(status: &str, body: &str) -> Problem {
        let source = std::io::Error::other(format!("{STATUS}{status}: {body}"));
        object_store::Error::Generic { store: "S3", source: Box::new(source) }.into()
    }

    #[test]
    fn who_must_act() {
        let coded = |code: &str| format!("<Error><Code>{code}</Code><Message>words\nof the server</Message></Error>");
        for (status, code, kind, words) in [
            ("403 Forbidden", "SignatureDoesNotMatch", Kind::Denied, "not accepted"),
            ("403 Forbidden", "InvalidAccessKeyId", Kind::Denied, "not accepted"),
            ("403 Forbidden", "AccessDenied", Kind::Denied, "access is denied"),
            ("403 Forbidden", "RequestTimeTooSkewed", Kind::Other, "clock of this machine"),
            ("400 Bad Request", "ExpiredToken", Kind::Denied, "have expired"),
            ("404 Not Found", "NoSuchBucket", Kind::Other, "bucket does not exist"),
            ("503 Service Unavailable", "SlowDown", Kind::Passing, "throttles"),
            ("429 Too Many Requests", "", Kind::Passing, "throttles"),
            ("500 Internal Server Error", "InternalError", Kind::Passing, "server failed"),
            ("507 Insufficient Storage", "", Kind::Full, "no space"),
            ("409 Conflict", "ConditionalRequestConflict", Kind::Passing, "under way"),
            ("501 Not Implemented", "NotImplemented", Kind::Other, "cannot do"),
            ("301 Moved", "PermanentRedirect", Kind::Other, "region"),
            ("400 Bad Request", "InvalidArgument", Kind::Other, "refused"),
        ] {
            let problem = answered(status, &coded(code));
            assert_eq!(problem.kind(), kind, "{status} {code}");
            let text = problem.words.clone();
            assert!(text.contains(words) && text.contains(&status[..3]) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn words_of_the_server_are_one_short_line() {
        let long = answered("400 Bad", &format!("<Message>{}\u{1b}[2J\r\n</Message>", "ä".repeat(1000)));
        assert!(long.words.chars().count() < LONGEST_MESSAGE + 100 && !long.words.contains('\u{1b}'), "{}", long.words);
    }
}
