//! Code generated from `proto/`, and nothing else.
//!
//! * [`log`]: what stands in the bucket, frozen once shipped.
//! * [`sync`]: what leader and follower say to each other.
//!
//! The definitions, with a comment on every field, are the `.proto` files themselves.
#![allow(missing_docs, clippy::all, clippy::clone_on_ref_ptr, unreachable_pub)]

/// `slipstream.log.v1`: commits and checkpoints in the bucket.
pub mod log {
    tonic::include_proto!("slipstream.log.v1");
}

/// `slipstream.sync.v1`: metadata synchronisation and administration between clusters.
pub mod sync {
    tonic::include_proto!("slipstream.sync.v1");
}

/// All definitions, encoded as a `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
