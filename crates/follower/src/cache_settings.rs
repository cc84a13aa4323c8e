//! The flags of a follower's cache.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;
use bytesize::ByteSize;
use serde::Deserialize;
use slipstream_frontend::settings::machine_memory;

/// Of the machine's memory, this part is for pieces of hot extents when nothing is said: beside the
/// half that queries may take, and what the system needs for files.
const MEMORY_DIVISOR: u64 = 8;
/// What that is on a machine that does not tell how much memory it has.
const MEMORY_BYTES: u64 = 512 << 20;

/// Whether hot extents are turned into another form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CacheForm {
    /// Vortex, where the columns' types allow it.
    #[default]
    Vortex,
    /// As they are in the bucket.
    Parquet,
}

impl fmt::Display for CacheForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vortex => "vortex",
            Self::Parquet => "parquet",
        })
    }
}

/// The cache's flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CacheArgs {
    /// Disk for the cache, such as 100GB, below DATA_DIR/cache: 95 % for whole extents that the
    /// caching policies make hot, 5 % for what queries read of others [default: no cache].
    #[arg(long, value_name = "BYTES", env = "SLIPSTREAM_CACHE_DISK_BYTES")]
    pub cache_disk_bytes: Option<ByteSize>,

    /// Memory for pieces of hot extents [default: an eighth of the machine's].
    #[arg(long, value_name = "BYTES", env = "SLIPSTREAM_CACHE_MEMORY_BYTES")]
    pub cache_memory_bytes: Option<ByteSize>,

    /// Bytes a second that are fetched from the bucket to keep hot extents near, such as 50MB
    /// [default: no limit].
    #[arg(long, value_name = "BYTES", env = "SLIPSTREAM_CACHE_BANDWIDTH")]
    pub cache_bandwidth: Option<ByteSize>,

    /// The form of hot extents on the disk [default: vortex].
    #[arg(long, value_name = "FORM", env = "SLIPSTREAM_CACHE_FORM")]
    pub cache_form: Option<CacheForm>,
}

/// The cache's settings, all decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// Bytes of disk; 0: there is no cache.
    pub disk_bytes: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes fetched in a second.
    pub bandwidth: Option<u64>,
    /// The form of hot extents.
    pub form: CacheForm,
}

impl CacheArgs {
    /// The keys of a settings file.
    pub const KEYS: [&str; 4] = [
        "cache-disk-bytes",
        "cache-memory-bytes",
        "cache-bandwidth",
        "cache-form",
    ];

    /// Layers flags over a file over defaults.
    ///
    /// # Errors
    /// When a value of the file makes no sense.
    pub fn resolve(&self, file: &toml::Table) -> anyhow::Result<CacheSettings> {
        let [disk, memory, bandwidth, form] = Self::KEYS;
        let default_memory = || machine_memory().map_or(MEMORY_BYTES, |all| all / MEMORY_DIVISOR);
        let form = match self.cache_form {
            Some(form) => form,
            None => form_of(file.get(form))
                .with_context(|| format!("{form} is neither \"vortex\" nor \"parquet\""))?,
        };
        Ok(CacheSettings {
            disk_bytes: bytes(self.cache_disk_bytes, file, disk)?.unwrap_or(0),
            memory_bytes: bytes(self.cache_memory_bytes, file, memory)?
                .unwrap_or_else(default_memory),
            bandwidth: bytes(self.cache_bandwidth, file, bandwidth)?.filter(|bytes| *bytes > 0),
            form,
        })
    }
}

fn form_of(value: Option<&toml::Value>) -> Option<CacheForm> {
    match value {
        None => Some(CacheForm::default()),
        Some(value) => value.clone().try_into().ok(),
    }
}

fn bytes(flag: Option<ByteSize>, file: &toml::Table, key: &str) -> anyhow::Result<Option<u64>> {
    if let Some(flag) = flag {
        return Ok(Some(flag.as_u64()));
    }
    let bytes = match file.get(key) {
        None => return Ok(None),
        Some(toml::Value::Integer(bytes)) => u64::try_from(*bytes).ok(),
        Some(toml::Value::String(text)) => ByteSize::from_str(text).ok().map(|size| size.as_u64()),
        Some(_) => None,
    };
    let bytes = bytes.with_context(|| format!("{key} is no number of bytes such as \"100GB\""))?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let file: toml::Table = "cache-disk-bytes = '1GB'\ncache-form = 'parquet'\n\
                                 cache-bandwidth = 0\ncache-memory-bytes = 7"
            .parse()
            .expect("TOML");
        let args = CacheArgs {
            cache_disk_bytes: Some(ByteSize::mb(5)),
            ..CacheArgs::default()
        };
        let settings = args.resolve(&file).expect("sensible");
        let expected = CacheSettings {
            disk_bytes: 5_000_000,
            memory_bytes: 7,
            bandwidth: None,
            form: CacheForm::Parquet,
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        for (text, key) in [
            ("cache-disk-bytes = 'much'", "cache-disk-bytes"),
            ("cache-memory-bytes = -1", "cache-memory-bytes"),
            ("cache-form = 'csv'", "cache-form"),
        ] {
            let file: toml::Table = text.parse().expect("TOML");
            let error = CacheArgs::default().resolve(&file).expect_err("refused");
            assert!(error.to_string().starts_with(key), "{error}");
        }
    }
}
