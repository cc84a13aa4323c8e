//! Where bytes come from.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use slipstream_frontend::{ErrorKind, IngestSource, ServiceError};
use slipstream_storage::{BucketConnection, open_object};

/// The bytes of a source, as they come.
pub(crate) type ByteStream = BoxStream<'static, Result<Bytes, ServiceError>>;

/// Opens a body or an object.
pub(crate) async fn open(
    source: IngestSource,
    bucket: &BucketConnection,
) -> Result<ByteStream, ServiceError> {
    match source {
        IngestSource::Body(bytes) => Ok(bytes),
        IngestSource::Url(url) => {
            let (store, path) = open_object(&url)?;
            if bucket.overlaps(&*store, &path) {
                return Err(ServiceError::new(
                    ErrorKind::Forbidden,
                    "own_bucket",
                    format!("{url} is in the bucket that the databases are in: query them instead"),
                ));
            }
            let fail = move |error: object_store::Error| unreadable(&url, &error);
            let object = store.get(&path).await.map_err(&fail)?;
            Ok(object.into_stream().map_err(fail).boxed())
        }
        IngestSource::Batches(..) => Err(ServiceError::internal("batches have no bytes")),
    }
}

fn unreadable(url: &str, error: &object_store::Error) -> ServiceError {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => ServiceError::new(
            ErrorKind::NotFound,
            "object_not_found",
            format!("{url} does not exist, as far as the leader can see"),
        ),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ServiceError::new(
            ErrorKind::InvalidArgument,
            "storage_denied",
            format!("the leader may not read {url}: give it credentials in its environment"),
        ),
        other => ServiceError::new(
            ErrorKind::Unavailable,
            "storage_unavailable",
            format!("the leader cannot read {url}: {other}"),
        ),
    }
}
