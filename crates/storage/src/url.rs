//! Addresses of buckets, and of single objects to ingest.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use crate::metered::MeteredStore;
use crate::web::{self, WebConnector};
use crate::{StorageError, StorageErrorKind};

/// A store that cannot be connected to within this is reported, rather than waited for: longer
/// than any healthy handshake across continents.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request, retries included, gives up after this. The callers above have retries of their
/// own that know whether the outcome matters.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
/// Retries of one request within [`RETRY_TIMEOUT`].
const RETRIES_MAX: usize = 6;

/// The address of a bucket: `file://`, `s3://`, `az://`, `gs://`, `memory://`, or a plain path.
///
/// Credentials, endpoints and regions come from the environment, by the names that each store's
/// own tools use (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, `AZURE_STORAGE_ACCOUNT_KEY`,
/// `GOOGLE_SERVICE_ACCOUNT`...).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl(Url);

impl BucketUrl {
    /// Whether the bucket is a directory of this machine.
    pub fn local_directory(&self) -> Option<PathBuf> {
        (self.0.scheme() == "file")
            .then(|| self.0.to_file_path().ok())
            .flatten()
    }

    /// Builds the store, and the prefix below which the bucket's objects stand. No request is
    /// made.
    pub(crate) fn build(&self) -> Result<(Arc<dyn ObjectStore>, Path), StorageError> {
        build(&self.0)
    }
}

impl FromStr for BucketUrl {
    type Err = StorageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = parse(text)?;
        match url.scheme() {
            "file" | "s3" | "s3a" | "az" | "azure" | "abfs" | "abfss" | "gs" | "memory" => {
                Ok(Self(url))
            }
            scheme => Err(invalid(format!(
                "'{text}' is not a bucket: '{scheme}://' is not one of file://, s3://, az://, gs://"
            ))),
        }
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The store and path of one object to read, such as a file to ingest.
///
/// # Errors
/// When the address is malformed, or of a kind that is not known. No request is made.
pub fn open_object(address: &str) -> Result<(Arc<dyn ObjectStore>, Path), StorageError> {
    let url = parse(address)?;
    let (store, path) = build(&url)?;
    if path.as_ref().is_empty() {
        return Err(invalid(format!(
            "'{address}' names a bucket, not an object in it"
        )));
    }
    Ok((store, path))
}

/// The store that an address is in, from its bucket or host on; for reading only.
///
/// # Errors
/// When the address is malformed, or of a kind that is not known. No request is made.
pub fn open_store(address: &str) -> Result<Arc<dyn ObjectStore>, StorageError> {
    let (store, _) = build(&parse(address)?)?;
    Ok(Arc::new(MeteredStore::new(store).read_only()))
}

fn invalid(message: String) -> StorageError {
    StorageError::new(StorageErrorKind::Invalid, message)
}

fn parse(text: &str) -> Result<Url, StorageError> {
    if text.contains("://") {
        return Url::parse(text)
            .map_err(|error| invalid(format!("'{text}' is not an address: {error}")));
    }
    let path = std::path::absolute(text)
        .map_err(|error| invalid(format!("'{text}' is not a directory: {error}")))?;
    Url::from_file_path(&path).map_err(|()| invalid(format!("'{text}' is not a directory")))
}

/// What the environment says of a kind of store, in the form its builder takes.
fn environment(prefix: &str) -> impl Iterator<Item = (String, String)> {
    std::env::vars()
        .filter(move |(key, _)| key.starts_with(prefix))
        .map(|(key, value)| (key.to_ascii_lowercase(), value))
}

macro_rules! cloud_store {
    ($builder:ty, $url:expr, $environment:expr) => {{
        let mut builder = <$builder>::default()
            .with_client_options(ClientOptions::default().with_connect_timeout(CONNECT_TIMEOUT));
        for (key, value) in environment($environment) {
            if let Ok(key) = key.parse() {
                builder = builder.with_config(key, value);
            }
        }
        builder
            .with_url($url.as_str())
            .with_retry(retry())
            .build()
            .map(|s| Arc::new(s) as _)
    }};
}

fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
        ..Default::default()
    }
}

fn build(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path), StorageError> {
    let fail = |source| StorageError::from_store("open the store of", url, source);
    let (scheme, path) =
        ObjectStoreScheme::parse(url).map_err(|error| invalid(format!("'{url}': {error}")))?;
    let path = Path::parse(&path).map_err(|error| invalid(format!("'{url}': {error}")))?;
    web::check(url).map_err(|error| invalid(error.to_string()))?;
    let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match scheme {
        // Directories stay behind empty otherwise; nothing else cleans them up.
        ObjectStoreScheme::Local => Ok(Arc::new(
            LocalFileSystem::new().with_automatic_cleanup(true),
        )),
        ObjectStoreScheme::Memory => Ok(Arc::new(InMemory::new())),
        ObjectStoreScheme::AmazonS3 => cloud_store!(AmazonS3Builder, url, "AWS_"),
        ObjectStoreScheme::MicrosoftAzure => cloud_store!(MicrosoftAzureBuilder, url, "AZURE_"),
        ObjectStoreScheme::GoogleCloudStorage => {
            cloud_store!(GoogleCloudStorageBuilder, url, "GOOGLE_")
        }
        ObjectStoreScheme::Http => HttpBuilder::new()
            .with_client_options(
                ClientOptions::default()
                    .with_connect_timeout(CONNECT_TIMEOUT)
                    .with_allow_http(true),
            )
            .with_http_connector(WebConnector)
            .with_url(&url[..url::Position::BeforePath])
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as _),
        _ => return Err(invalid(format!("'{url}': this kind of store is not known"))),
    };
    Ok((store.map_err(fail)?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_is_a_directory_bucket() {
        let url: BucketUrl = "/tmp/some where".parse().expect("a path");
        assert_eq!(url.to_string(), "file:///tmp/some%20where");
        assert_eq!(url.local_directory(), Some("/tmp/some where".into()));
    }

    #[test]
    fn what_is_not_a_bucket_is_refused_with_the_choices() {
        let error = "ftp://host/x"
            .parse::<BucketUrl>()
            .expect_err("not a store");
        assert!(error.to_string().contains("s3://"), "{error}");
        assert!("https://host/x".parse::<BucketUrl>().is_err());
    }

    #[test]
    fn a_bucket_is_known_again_by_any_address() {
        let bucket = |url: &str| {
            let url: BucketUrl = url.parse().expect("a bucket");
            crate::BucketConnection::new(&url).expect("builds")
        };
        let (whole, part) = (bucket("s3://b"), bucket("s3://b/team/a"));
        for (address, in_whole, in_part) in [
            ("s3://b/databases/1/extents/2.parquet", true, false),
            ("s3://b/team/a/databases/1/extents/2.parquet", false, true),
            ("s3a://b/team/a/clusters/x", false, true),
            (
                "https://b.s3.us-east-1.amazonaws.com/databases/1",
                true,
                false,
            ),
            (
                "https://s3.us-east-1.amazonaws.com/b/databases/1",
                true,
                false,
            ),
            ("s3://b/weather/1.csv", false, false),
            ("s3://b/team/a/databases.csv", false, false),
            ("s3://other/databases/1", false, false),
            ("s3://b/team", false, true),
            ("s3://b/team/a/%64atabases/1", false, true),
        ] {
            let (store, path) = open_object(address).expect(address);
            let found = [&whole, &part].map(|bucket| bucket.overlaps(&*store, &path));
            assert_eq!(found, [in_whole, in_part], "{address}");
        }
        let root = Path::default();
        let store = open_store("s3://b").expect("builds");
        assert!(whole.overlaps(&*store, &root) && part.overlaps(&*store, &root));
    }

    #[test]
    fn a_prefix_stays_in_front_of_every_object() {
        let url: BucketUrl = "memory:///team/a".parse().expect("memory");
        assert_eq!(url.build().expect("builds").1.as_ref(), "team/a");
    }
}
