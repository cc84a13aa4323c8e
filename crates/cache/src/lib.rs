//! What a follower keeps near: hot extents whole, blocks of cold ones, and what of both is in use.
//!
//! * [`plan`] decides, and does nothing else: which extents are to be here, which are to be
//!   fetched, in which order, and which are to go. Newest first when the disk is too small.
//! * [`HotTier`] is the directory of whole extents. What is in it was checked against its SHA-256
//!   before it got its name, so what survives a crash is whole; and each of its files is a
//!   [`CheckedFile`], which notices when its bytes change.
//! * [`Warmer`] brings the tier in line with what is hot: fetches, a few at a time, then evicts, or
//!   before where there is no room for both; and turns what came as Parquet into the [`Form`] that
//!   scans faster.
//! * [`HotReader`] reads an extent in that form, with [`HotMemory`] in front of the disk.
//! * [`ColdCache`] has blocks of what is not hot. A scan of cold data turns it over and nothing else.
//! * [`CachedStore`] reads ranges of Parquet: from the tier, from cold blocks, from the bucket.
//!
//! # Invariants
//!
//! * The cache can be thrown away at any moment: it holds nothing that the bucket does not.
//! * A query that has a file open keeps it, though it is evicted meanwhile.
//! * Bytes that enter the hot tier are checked against size and SHA-256 of the catalog, and bytes
//!   that are read from its files against what entered.
//! * Nothing that is read moves a hot extent in or out: only policies, clock and disk decide.

#![cfg_attr(
    test,
    allow(
        clippy::single_range_in_vec_init,
        reason = "a list of ranges may have one"
    )
)]

mod checked;
mod cold;
mod form;
mod memory;
mod plan;
mod ranges;
mod store;
mod tier;
mod warmer;

pub use checked::{CheckedFile, CheckedFileError, Source};
pub use cold::{ColdCache, Origin};
pub use form::Form;
pub use memory::{HotMemory, HotReader};
pub use plan::{HotExtent, Plan, Resident, plan};
pub use store::CachedStore;
pub use tier::{HotTier, Insertion, OpenExtent, TierError, TierUsage};
pub use warmer::{BucketRead, BucketReads, Fetch, Progress, Warmer, WarmerOptions};
