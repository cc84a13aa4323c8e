//! The form that an extent has on the local disk.
//!
//! An extent is Parquet in the bucket, so that any tool can read it. On the disk it stands as
//! Vortex: lightly encoded blocks that decode several times faster than zstd pages and take about
//! as much room. Rows, order and values are the same; types that Vortex does not give back exactly
//! as they were leave the extent as Parquet.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use vortex::VortexSessionDefault;
use vortex::array::VortexSessionExecute;
use vortex::array::stream::ArrayStreamAdapter;
use vortex::arrow::ArrowSessionExt;
use vortex::error::VortexError;
use vortex::file::WriteOptionsSessionExt;
use vortex::io::session::RuntimeSessionExt;
use vortex::session::VortexSession;

/// Rows that are decoded and encoded together: a multiple of Vortex's blocks of 8,192 rows.
const BATCH_ROWS: usize = 65_536;

/// How an extent is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The bytes of the bucket.
    Parquet,
    /// The same rows, as Vortex.
    Vortex,
}

impl Form {
    /// The ending of its files.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Vortex => "vortex",
        }
    }

    /// The form of a file, by its ending.
    pub fn of_extension(extension: &str) -> Option<Self> {
        [Self::Parquet, Self::Vortex]
            .into_iter()
            .find(|form| form.extension() == extension)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())
    }
}

/// Turns extents into the form that scans fastest.
#[derive(Clone)]
pub(crate) struct Encoder {
    session: VortexSession,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            session: VortexSession::default(),
        }
    }
}

/// An extent that cannot be encoded: it is kept as Parquet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// The rows cannot be read.
    #[error("cannot read the extent: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Vortex does not take them.
    #[error("cannot encode the extent: {0}")]
    Vortex(#[from] VortexError),
}

impl Encoder {
    /// The payload for an extent's bytes, and its form. Uses the processor; runs on tokio.
    ///
    /// # Errors
    /// When the bytes are no Parquet file, or encoding fails over them.
    pub(crate) async fn encode(&self, extent: Bytes) -> Result<(Form, Bytes), EncodeError> {
        let metadata = ArrowReaderMetadata::load(&extent, Default::default())?;
        let schema = Arc::clone(metadata.schema());
        if !self.gives_back(&schema) {
            return Ok((Form::Parquet, extent));
        }
        let rows = ParquetRecordBatchReaderBuilder::new_with_metadata(extent, metadata)
            .with_batch_size(BATCH_ROWS)
            .build()?;
        let session = self.session.clone().with_tokio();
        let dtype = session.arrow().from_arrow_schema(&schema)?;
        let (importing, fields) = (session.clone(), Arc::clone(&schema));
        let arrays = rows.map(move |batch| {
            let batch = batch.map_err(VortexError::from)?;
            importing.arrow().from_arrow_record_batch(batch, &fields)
        });
        let arrays = ArrayStreamAdapter::new(dtype, futures::stream::iter(arrays));
        let mut payload = Vec::new();
        session.write_options().write(&mut payload, arrays).await?;
        Ok((Form::Vortex, payload.into()))
    }

    /// Whether Vortex gives every column back in the type it has. Found out by doing it with one
    /// null: what its code accepts is what its code accepts.
    fn gives_back(&self, schema: &Schema) -> bool {
        // Maps and unions have constraints of their own, and a null of them says little.
        let is_plain = schema.fields().iter().all(|f| is_plain(f.data_type()));
        is_plain && self.round_trip_of_null(schema).is_ok_and(|same| same)
    }

    fn round_trip_of_null(&self, schema: &Schema) -> Result<bool, VortexError> {
        let nullable = schema
            .fields()
            .iter()
            .map(|field| Field::new(field.name(), field.data_type().clone(), true));
        let schema: SchemaRef = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let nulls = schema.fields().iter();
        let nulls = nulls.map(|field| new_null_array(field.data_type(), 1));
        let batch = RecordBatch::try_new(Arc::clone(&schema), nulls.collect())?;
        let arrow = self.session.arrow();
        let array = arrow.from_arrow_record_batch(batch.clone(), &schema)?;
        let target = Field::new_struct("", schema.fields().clone(), false);
        let mut context = self.session.create_execution_ctx();
        let back = arrow.execute_arrow(array, Some(&target), &mut context)?;
        Ok(back.data_type() == target.data_type())
    }
}

fn is_plain(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(..)
        | DataType::Union(..)
        | DataType::RunEndEncoded(..)
        | DataType::Dictionary(..)
        | DataType::FixedSizeBinary(_) => false,
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner) => is_plain(inner.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_plain(field.data_type())),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
