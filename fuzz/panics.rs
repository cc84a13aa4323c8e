//! Which panics are defects.

/// What stands in the path of a file of a dependency.
const DEPENDENCY: &str = "/registry/";
/// What stands in the path of a file of the standard library.
const STANDARD: &str = "/rustc/";

/// Makes a panic in this repository's own code the end of the process, also where somebody catches
/// it. One in a dependency ends it only when it gets out of the target: the decoders of Arrow and
/// Parquet do not expect every kind of damage, and whoever calls them is prepared for that.
pub(crate) fn abort_on_our_own() {
    // What stands there now ends the process at every panic.
    let _ = std::panic::take_hook();
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        if !file.contains(DEPENDENCY) && !file.contains(STANDARD) {
            show(panic);
            std::process::abort();
        }
    }));
}
