//! The system seen from outside: real leader and follower processes over one bucket.
//!
//! Each module is a subject, and each test is a claim about it. A test gets a [`cluster::Site`]:
//! an empty directory, an empty bucket, and the means to start, kill and restart nodes and to
//! talk to them as any client would. When a test fails, the logs of its nodes are shown.
//!
//! The S3 tests need a server. They look for Python with the package `moto` (in
//! `$SLIPSTREAM_TEST_PYTHON`, else `python3`) and for the program `weed` of SeaweedFS (in
//! `$SLIPSTREAM_TEST_WEED`, else on the path), and say so when they have to leave something out;
//! with `SLIPSTREAM_TEST_REQUIRE_S3=1` they fail instead. So does the search of a node's memory
//! with `SLIPSTREAM_TEST_REQUIRE_MEMORY=1`, where one process may not read another's.
//!
//! The tests under [`faults`] give each process a network namespace of its own where they may (root,
//! and `ip` and `tc` of iproute2), and say so where they have to do with proxies.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes run on the real clock, and the tests wait for them on it"
)]
#![allow(
    clippy::print_stderr,
    reason = "a test says what it left out, and shows logs"
)]

mod access;
mod arrows;
mod bad_input;
mod bank;
mod cache;
mod cluster;
mod command_line;
mod commands;
mod corruption;
mod crash;
mod end_to_end;
mod faults;
mod fencing;
mod flight;
mod full_disk;
mod fuzz;
mod garbage;
mod health;
mod ingest_at_scale;
mod lifecycle;
mod log_start;
mod long_query;
mod orphans;
mod pins;
mod removal;
mod requests;
mod resources;
mod sharing;
mod simulation;
mod streaming;
mod time_travel;
mod tls;
mod types;
mod undo;
