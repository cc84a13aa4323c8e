//! Claims about queries, over a bucket in memory.
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a world may hold a single extent"
)]
#![expect(
    clippy::single_range_in_vec_init,
    reason = "a list of ranges, of which there is one"
)]

mod answers;
mod delete;
mod entities;
mod faults;
mod fixture;
mod limits;
mod local;
mod names;
mod ordering;
mod planning;
mod plans;
mod pruning;
mod statements;
mod travel;
mod types;
