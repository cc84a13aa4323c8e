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
use slipstream_model::{ExternalFormat, ExternalTable};
use slipstream_storage::open_store;

use crate::{QueryError, QueryErrorKind, QueryRuntime};

/// The table as DataFusion scans it.
pub(crate) fn provider(
    runtime: &QueryRuntime,
    table: &ExternalTable,
) -> Result<Arc<dyn TableProvider>> {
    let urls = table.locations.iter().map(|location| {
        let url = ListingTableUrl::parse(location)?;
        check_local(&url, &runtime.options.external_files, table)?;
        register(runtime, &url, location)?;
        Ok(url)
    });
    let urls: Vec<_> = urls.collect::<Result<_>>()?;
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

/// Makes a store known to the engine, under the address of its bucket or host.
fn register(runtime: &QueryRuntime, url: &ListingTableUrl, location: &str) -> Result<()> {
    let environment = runtime.base.runtime_env();
    if environment.object_store(url).is_ok() {
        return Ok(());
    }
    let store = open_store(location).map_err(|error| DataFusionError::External(error.into()))?;
    let store_url = url.object_store();
    environment.register_object_store(store_url.as_ref(), store);
    Ok(())
}

/// Refuses files of this machine that the node was not told to show.
fn check_local(url: &ListingTableUrl, allowed: &[PathBuf], table: &ExternalTable) -> Result<()> {
    if url.scheme() != "file" {
        return Ok(());
    }
    let path = Path::new("/").join(url.prefix().as_ref());
    // Symbolic links and `..` lead elsewhere: what counts is where the file really is.
    let real = path.canonicalize().unwrap_or(path);
    let is_allowed = |root: &PathBuf| root.canonicalize().is_ok_and(|root| real.starts_with(root));
    if allowed.iter().any(is_allowed) {
        return Ok(());
    }
    let message = format!(
        "external table '{}' reads files of this machine, and this node was not told that it may \
         show them: start it with --external-files DIR",
        table.name
    );
    let refused = QueryError::new(QueryErrorKind::Unsupported, message);
    Err(DataFusionError::External(Box::new(refused)))
}
