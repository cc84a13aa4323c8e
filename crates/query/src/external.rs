//! External tables: files outside the bucket, listed and read when a query names them.
//!
//! Unlike extents they may change under a query, and nothing is known of them before: each scan
//! lists its locations. What of this machine's own files may be read is the node's to say, not the
//! database's: a database comes from elsewhere on a follower.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::error::{DataFusionError, Result};
use object_store::ObjectStore;
use object_store::path::Path as StorePath;
use slipstream_model::{ExternalFormat, ExternalTable};
use slipstream_storage::open_store;

use crate::{QueryError, QueryErrorKind, QueryRuntime};

/// The table as DataFusion scans it.
pub(crate) fn provider(
    runtime: &QueryRuntime,
    table: &ExternalTable,
) -> Result<Arc<dyn TableProvider>> {
    // A log may hold a table that an older program took.
    table.check().map_err(|error| refused(error.to_string()))?;
    let urls = table.locations.iter().map(|location| {
        let url = ListingTableUrl::parse(location)?;
        let path = check_local(&url, &runtime.options.external_files, table)?;
        let store = store_of(runtime, &url, location)?;
        let bucket = runtime.options.bucket.as_ref();
        if bucket.is_some_and(|bucket| bucket.overlaps(&*store, &path)) {
            return Err(refused(format!(
                "external table '{}' reads the bucket that the databases are in: query them",
                table.name
            )));
        }
        Ok(url)
    });
    let urls: Vec<_> = urls.collect::<Result<_>>()?;
    // The engine reads all of them from the store of the first.
    if urls
        .iter()
        .any(|url| url.object_store() != urls[0].object_store())
    {
        return Err(refused(format!(
            "external table '{}' reads several buckets or hosts: make a table of each",
            table.name
        )));
    }
    let format: Arc<dyn FileFormat> = match table.format {
        ExternalFormat::Csv { has_header } => {
            Arc::new(CsvFormat::default().with_has_header(has_header))
        }
        ExternalFormat::Json => Arc::new(JsonFormat::default()),
        ExternalFormat::Parquet => Arc::new(ParquetFormat::default()),
    };
    // Any ending: a location is what its table says it is.
    let options = ListingOptions::new(format).with_file_extension("");
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(Arc::clone(&table.schema));
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// The store of a location, made known to the engine under the address of its bucket or host.
fn store_of(
    runtime: &QueryRuntime,
    url: &ListingTableUrl,
    location: &str,
) -> Result<Arc<dyn ObjectStore>> {
    let environment = runtime.base.runtime_env();
    if let Ok(store) = environment.object_store(url) {
        return Ok(store);
    }
    let store = open_store(location).map_err(|error| DataFusionError::External(error.into()))?;
    let store_url = url.object_store();
    environment.register_object_store(store_url.as_ref(), Arc::clone(&store));
    Ok(store)
}

/// Where a location leads, in its store. Files of this machine that the node was not told to show are
/// refused.
fn check_local(
    url: &ListingTableUrl,
    allowed: &[PathBuf],
    table: &ExternalTable,
) -> Result<StorePath> {
    if url.scheme() != "file" {
        return Ok(url.prefix().clone());
    }
    let path = Path::new("/").join(url.prefix().as_ref());
    // Symbolic links and `..` lead elsewhere: what counts is where the file really is.
    let real = path.canonicalize().unwrap_or(path);
    let is_allowed = |root: &PathBuf| root.canonicalize().is_ok_and(|root| real.starts_with(root));
    if allowed.iter().any(is_allowed) {
        return Ok(StorePath::from_absolute_path(&real)?);
    }
    Err(refused(format!(
        "external table '{}' reads files of this machine, and this node was not told that it may \
         show them: start it with --external-files DIR",
        table.name
    )))
}

fn refused(message: String) -> DataFusionError {
    let refused = QueryError::new(QueryErrorKind::Unsupported, message);
    DataFusionError::External(Box::new(refused))
}
