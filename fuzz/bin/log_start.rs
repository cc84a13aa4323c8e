#![no_main]

#[path = "../panics.rs"]
mod panics;
#[path = "../targets/log_start.rs"]
mod target;

libfuzzer_sys::fuzz_target!(init: panics::abort_on_our_own(), |data: &[u8]| target::run(data));
