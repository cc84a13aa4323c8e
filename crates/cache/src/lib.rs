//! The hot cache of a follower: whole extents on its own disk.
//!
//! * [`plan`] decides, and does nothing else: which extents are to be here, which are to be
//!   fetched, in which order, and which are to go. Newest first when the disk is too small.
//! * [`HotTier`] is the directory of files. What is in it was checked against its SHA-256 before
//!   it got its name, so what survives a crash is whole.
//! * [`CachedStore`] reads an extent from the tier when it is there, and from the bucket when it
//!   is not, or cannot be read.
//! * [`Warmer`] brings the one in line with the other: fetches and evicts, a few at a time.
//!
//! # Invariants
//!
//! * The cache can be thrown away at any moment: it holds nothing that the bucket does not.
//! * A query that has a file open keeps it, though it is evicted meanwhile.
//! * Bytes that enter are checked against size and SHA-256 of the catalog.

mod plan;
mod store;
mod tier;
mod warmer;

pub use plan::{HotExtent, Plan, plan};
pub use store::CachedStore;
pub use tier::{HotTier, TierError, TierUsage};
pub use warmer::{Fetch, Warmer};
