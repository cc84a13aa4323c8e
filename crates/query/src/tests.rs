//! Claims about queries, over a bucket in memory.

mod answers;
mod faults;
mod fixture;
mod limits;
mod names;
mod ordering;
mod planning;
mod pruning;
mod statements;
mod types;
