//! Which versions running queries still read.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use slipstream_model::Version;

/// Counts the readers of each version of one database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pins(Arc<Mutex<BTreeMap<Version, usize>>>);

impl Pins {
    /// Holds a version until the guard is dropped.
    pub(crate) fn hold(&self, version: Version) -> Pin {
        *self.0.lock().entry(version).or_default() += 1;
        Pin {
            pins: self.clone(),
            version,
        }
    }

    /// The lowest version that is held.
    pub(crate) fn lowest(&self) -> Option<Version> {
        self.0.lock().keys().next().copied()
    }
}

/// A reader of one version.
#[derive(Debug)]
pub struct Pin {
    pins: Pins,
    version: Version,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut readers = self.pins.0.lock();
        if let Some(count) = readers.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.version);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_version_read_is_held_until_its_last_reader_ends() {
        let pins = Pins::default();
        let (first, second) = (pins.hold(Version::new(3)), pins.hold(Version::new(3)));
        let _newer = pins.hold(Version::new(5));
        drop(first);
        assert_eq!(pins.lowest(), Some(Version::new(3)));
        drop(second);
        assert_eq!(pins.lowest(), Some(Version::new(5)));
    }
}
