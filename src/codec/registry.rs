//! A client to any Confluent-compatible schema registry: subjects, versions and ids <-> schemas.
//!
//! - "There is none" is an answer (`None`); "nobody answers" is an error. A schema that somebody
//!   has named may be refused only on an answer.
//! - Every call has a time limit and is tried three times at most, unless the registry itself has
//!   said no.

use std::time::Duration;

use rand::RngExt as _;
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_all_subjects, get_all_versions, perform_sr_call, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{
    RawError, RawRegisteredSchema, SchemaType, SrCall, SuppliedSchema,
};

use super::compiled::Level;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE_MS: u64 = 1_000;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// The registry's codes for a subject, a version and a schema that are not there.
const NOT_FOUND: [u32; 3] = [40_401, 40_402, 40_403];

/// What went wrong with the registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers, or only with an error of its own.
    #[error("no schema registry answers at {url}: is it running? (MILLRACE_REGISTRY_URL)")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What the client says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answers, but not as a registry does.
    #[error("{url} does not answer as a schema registry does: {reason} (MILLRACE_REGISTRY_URL)")]
    Strange {
        /// Where it was looked for.
        url: String,
        /// What came back.
        reason: String,
    },
    /// It refuses.
    #[error("the registry refuses {subject}: {reason}")]
    Refused {
        /// The subject.
        subject: String,
        /// Its reason.
        reason: String,
    },
}

/// A schema as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id, which stands in front of every value.
    pub id: u32,
    /// Its version under the subject.
    pub version: u32,
    /// The schema.
    pub text: String,
}

/// The client.
#[derive(Debug)]
pub struct Registry {
    url: String,
    settings: SrSettings,
    http: reqwest::Client,
}

impl Registry {
    /// Makes a client; nothing is asked yet.
    ///
    /// # Errors
    /// No HTTP client can be made on this machine.
    pub fn new(url: &str) -> Result<Self, Error> {
        let url = url.trim_end_matches('/').to_owned();
        let settings = SrSettings::new_builder(url.clone()).set_timeout(CALL_TIMEOUT).build();
        let http = reqwest::Client::builder().timeout(CALL_TIMEOUT).build();
        match (settings, http) {
            (Ok(settings), Ok(http)) => Ok(Self { url, settings, http }),
            (Err(error), _) => Err(Error::Unreachable { url, source: error.into() }),
            (_, Err(error)) => Err(Error::Unreachable { url, source: error.into() }),
        }
    }

    /// The schema that an id stands for; `None` if the registry has none.
    ///
    /// # Errors
    /// The registry does not answer.
    pub async fn schema(&self, id: u32) -> Result<Option<String>, Error> {
        let found = self.call(SrCall::GetById(id)).await?;
        Ok(found.and_then(|raw| raw.schema))
    }

    /// The names of all subjects.
    ///
    /// # Errors
    /// The registry does not answer.
    pub async fn subjects(&self) -> Result<Vec<String>, Error> {
        let found = self.retried(|| get_all_subjects(&self.settings)).await?;
        Ok(found.unwrap_or_default())
    }

    /// Every version of a subject, oldest first; none if there is no such subject.
    ///
    /// # Errors
    /// The registry does not answer.
    pub async fn versions(&self, subject: &str) -> Result<Vec<Registered>, Error> {
        let numbers = self.retried(|| get_all_versions(&self.settings, subject.to_owned())).await?;
        let mut versions = Vec::new();
        for number in numbers.unwrap_or_default() {
            let raw = self.call(SrCall::GetBySubjectAndVersion(subject, number)).await?;
            // Deleted since the list was made.
            let Some(raw) = raw else { continue };
            match (raw.id, raw.schema) {
                (Some(id), Some(text)) => versions.push(Registered { id, version: number, text }),
                (_, _) => {
                    return Err(self.strange(format!("{subject} version {number} has no schema")));
                }
            }
        }
        versions.sort_by_key(|registered| registered.version);
        Ok(versions)
    }

    /// Registers a schema and returns its id. What is registered already stays as it is.
    ///
    /// # Errors
    /// The registry does not answer, or refuses it as incompatible.
    pub async fn register(&self, subject: &str, text: &str) -> Result<u32, Error> {
        let schema = || SuppliedSchema::new(None, SchemaType::Avro, text.to_owned());
        let call = || post_schema(&self.settings, subject.to_owned(), schema());
        match self.attempt(call).await {
            Ok(registered) => Ok(registered.id),
            Err(error) => match raw_error(&error) {
                Some(raw) if raw.error_code != 0 && !is_transient(&error) => {
                    Err(Error::Refused { subject: subject.to_owned(), reason: raw.message.clone() })
                }
                _ => Err(self.unanswered(error)),
            },
        }
    }

    /// Sets what new versions of a subject must keep to.
    ///
    /// # Errors
    /// The registry does not answer, or refuses.
    pub async fn set_level(&self, subject: &str, level: Level) -> Result<(), Error> {
        let url = format!("{}/config/{}", self.url, subject.replace('/', "%2F"));
        let body = serde_json::json!({ "compatibility": level.as_str() }).to_string();
        let call = || async {
            let request = self.http.put(&url).header("content-type", CONTENT_TYPE);
            let answer = request.body(body.clone()).send().await;
            let answer = answer.map_err(|error| SRCError::retryable_with_cause(error, "no answer"));
            let answer = answer?;
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            if status.is_success() {
                Ok(())
            } else {
                Err(SRCError::new(&text, None, status.is_server_error()))
            }
        };
        self.attempt(call).await.map_err(|error| {
            if is_transient(&error) {
                self.unanswered(error)
            } else {
                Error::Refused { subject: subject.to_owned(), reason: error.error }
            }
        })
    }

    async fn call(&self, call: SrCall<'_>) -> Result<Option<RawRegisteredSchema>, Error> {
        self.retried(|| perform_sr_call(&self.settings, call)).await
    }

    /// A call whose "not found" is an answer.
    async fn retried<T, F>(&self, call: impl Fn() -> F) -> Result<Option<T>, Error>
    where
        F: Future<Output = Result<T, SRCError>>,
    {
        match self.attempt(call).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => match raw_error(&error) {
                Some(raw) if NOT_FOUND.contains(&raw.error_code) => Ok(None),
                _ => Err(self.unanswered(error)),
            },
        }
    }

    async fn attempt<T, F>(&self, call: impl Fn() -> F) -> Result<T, SRCError>
    where
        F: Future<Output = Result<T, SRCError>>,
    {
        let mut pause_ms = FIRST_PAUSE_MS;
        for _ in 1..ATTEMPTS {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) if !is_transient(&error) => return Err(error),
                Err(error) => tracing::debug!(url = self.url, %error, "the registry is away"),
            }
            // Half to all of it, so that many who wait do not come back together.
            let jittered = rand::rng().random_range(pause_ms / 2..=pause_ms);
            tokio::time::sleep(Duration::from_millis(jittered)).await;
            pause_ms *= 2;
        }
        call().await
    }

    fn unanswered(&self, error: SRCError) -> Error {
        match raw_error(&error) {
            // It spoke, but neither as a registry nor of a passing trouble.
            Some(raw) if !is_transient(&error) => {
                self.strange(format!("{}, code {}", raw.message, raw.error_code))
            }
            _ => Error::Unreachable { url: self.url.clone(), source: error.into() },
        }
    }

    fn strange(&self, reason: String) -> Error {
        Error::Strange { url: self.url.clone(), reason }
    }
}

/// Whether it may pass by itself. The client tells so only of a part of what a server may answer.
fn is_transient(error: &SRCError) -> bool {
    let of_server = |code: u32| (500..600).contains(&code) || (50_000..60_000).contains(&code);
    // A registry that has just started, and answers before it has caught up with its own journal,
    // makes a subject that it then finds to be there. Registering is idempotent: ask again.
    let in_doubt = |message: &str| message.contains("already exists");
    error.retriable
        || raw_error(error).is_some_and(|raw| of_server(raw.error_code) || in_doubt(&raw.message))
}

fn raw_error(error: &SRCError) -> Option<&RawError> {
    std::error::Error::source(error)?.downcast_ref()
}
