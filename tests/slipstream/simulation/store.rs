//! An object store in memory that is as bad as real ones get, and tells the checker of all it does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::check::Check;
use super::clock::Host;
use super::faults::{Dice, Fault, Sabotage};

const LATENCY: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(40));
const LATENCY_SLOW: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// What a client waits for a store that it does not reach.
const PATIENCE: Duration = Duration::from_millis(900);
/// When a put lands that its client has given up.
const LATE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(6));

/// What is in the bucket.
pub(crate) type Objects = BTreeMap<String, Bytes>;

/// The store.
pub(crate) struct Store {
    objects: Mutex<Objects>,
    pub(crate) check: Arc<Check>,
    sabotage: Option<Sabotage>,
}

impl Store {
    pub(crate) fn new(check: Arc<Check>, sabotage: Option<Sabotage>) -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            check,
            sabotage,
        })
    }

    /// What is there, without asking over the network.
    pub(crate) fn objects(&self) -> Objects {
        self.objects.lock().clone()
    }

    /// An object lands. `false`: there was one, and it was to be created.
    fn land(&self, host: &Host, path: &str, bytes: Bytes, is_create: bool) -> bool {
        let mut objects = self.objects.lock();
        if is_create && objects.contains_key(path) {
            let is_commit = path.ends_with(".commit");
            match self.sabotage {
                // Planted in the store, which then answers as a writer would hear it that takes
                // every `AlreadyExists` for an attempt of its own that landed.
                Some(Sabotage::MissingReadBack) if is_commit => return true,
                // Planted in the store, which lets a writer through that does not mind that
                // somebody else's commit, of whatever epoch, stands there.
                Some(Sabotage::EpochNotChecked) if is_commit => {}
                _ => return false,
            }
        }
        objects.insert(path.to_owned(), bytes.clone());
        self.check.landed(host, path, &bytes, &objects);
        true
    }
}

/// A host's way to the store.
pub(crate) struct Access {
    pub(crate) store: Arc<Store>,
    pub(crate) host: Arc<Host>,
    pub(crate) dice: Dice,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated store of {}", self.host.name)
    }
}

fn unavailable(what: &'static str) -> Error {
    Error::Generic {
        store: "simulation",
        source: what.into(),
    }
}

/// How a request may fail on its way.
struct Ways {
    slow: Fault,
    unavailable: Fault,
    refused: Fault,
}

const PUT: Ways = Ways {
    slow: Fault::SlowPut,
    unavailable: Fault::PutUnavailable,
    refused: Fault::PutRefused,
};
const GET: Ways = Ways {
    slow: Fault::SlowGet,
    unavailable: Fault::GetUnavailable,
    refused: Fault::GetRefused,
};
const DELETE: Ways = Ways {
    slow: Fault::SlowDelete,
    unavailable: Fault::DeleteUnavailable,
    refused: Fault::DeleteRefused,
};

impl Access {
    /// The way there.
    async fn send(&self, ways: Ways, path: &str) -> Result<()> {
        self.host.runs().await;
        if !self.host.reaches_bucket() {
            sleep(PATIENCE).await;
            self.host.runs().await;
            return Err(unavailable("no route to host"));
        }
        let faults = &self.dice;
        let (low, high) = if faults.hits(ways.slow) {
            LATENCY_SLOW
        } else {
            LATENCY
        };
        sleep(faults.between(low, high)).await;
        if faults.hits(ways.unavailable) {
            self.host.runs().await;
            return Err(unavailable("503 Slow Down"));
        }
        if faults.hits(ways.refused) {
            self.host.runs().await;
            return Err(Error::PermissionDenied {
                path: path.to_owned(),
                source: "403 Access Denied".into(),
            });
        }
        Ok(())
    }

    /// The way back.
    async fn answer(&self) {
        sleep(self.dice.between(LATENCY.0 / 3, LATENCY.1 / 3)).await;
        self.host.runs().await;
    }

    async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.send(GET, location.as_ref()).await?;
        let found = self.store.objects.lock().get(location.as_ref()).cloned();
        self.store.check.trace(&self.host, "get", location.as_ref());
        self.answer().await;
        let bytes = found.ok_or_else(|| Error::NotFound {
            path: location.to_string(),
            source: "404".into(),
        })?;
        let size = bytes.len() as u64;
        let range = match options.range {
            None => 0..size,
            Some(GetRange::Bounded(range)) => range.start.min(size)..range.end.min(size),
            Some(GetRange::Offset(from)) => from.min(size)..size,
            Some(GetRange::Suffix(last)) => size.saturating_sub(last)..size,
        };
        let mut chunks = vec![Ok(bytes.slice(range.start as usize..range.end as usize))];
        if self.dice.hits(Fault::TornGet) {
            let half = (range.end - range.start) / 2 + range.start;
            chunks = vec![
                Ok(bytes.slice(range.start as usize..half as usize)),
                Err(unavailable("connection reset")),
            ];
        }
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter(chunks).boxed()),
            meta: ObjectMeta {
                location: location.clone(),
                last_modified: SystemTime::UNIX_EPOCH.into(),
                size,
                e_tag: None,
                version: None,
            },
            range,
            attributes: Attributes::default(),
        })
    }

    async fn put(&self, path: String, bytes: Bytes, is_create: bool) -> Result<PutResult> {
        let (store, faults) = (&self.store, &self.dice);
        store.check.puts(&path);
        self.send(PUT, &path).await?;
        if !self.host.is_up() {
            // It died while this was on its way.
            if faults.chance(0.5) {
                faults.note(Fault::DyingPut);
                store.land(&self.host, &path, bytes.clone(), is_create);
            }
            std::future::pending::<()>().await;
        }
        let exists = || Error::AlreadyExists {
            path: path.clone(),
            source: "409".into(),
        };
        if is_create && faults.hits(Fault::SpuriousConflict) {
            self.answer().await;
            return Err(if faults.chance(0.5) {
                exists()
            } else {
                Error::Precondition {
                    path,
                    source: "409 ConditionalRequestConflict".into(),
                }
            });
        }
        if faults.hits(Fault::LatePut) {
            let (store, host) = (Arc::clone(store), Arc::clone(&self.host));
            let late = faults.between(LATE.0, LATE.1);
            tokio::spawn(async move {
                sleep(late).await;
                store.land(&host, &path, bytes, is_create);
            });
            sleep(PATIENCE).await;
            self.host.runs().await;
            return Err(unavailable("timed out"));
        }
        // A create is atomic in every store that is certified; what is overwritten may be torn.
        if !is_create && faults.hits(Fault::TornPut) {
            store.land(&self.host, &path, bytes.slice(..bytes.len() / 2), false);
            self.answer().await;
            return Err(unavailable("broken pipe"));
        }
        let is_landed = store.land(&self.host, &path, bytes, is_create);
        store.check.trace(&self.host, "put", &path);
        if faults.hits(Fault::LostAnswer) {
            sleep(PATIENCE).await;
            self.host.runs().await;
            return Err(unavailable("connection reset by peer"));
        }
        self.answer().await;
        if !is_landed {
            return Err(exists());
        }
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn delete_one(&self, location: Path) -> Result<Path> {
        self.host.runs().await;
        self.store.check.deletes(&self.host, location.as_ref());
        self.send(DELETE, location.as_ref()).await?;
        let gone = self.store.objects.lock().remove(location.as_ref());
        self.store
            .check
            .trace(&self.host, "delete", location.as_ref());
        if self.dice.hits(Fault::LostDelete) {
            sleep(PATIENCE).await;
            self.host.runs().await;
            return Err(unavailable("connection reset by peer"));
        }
        self.answer().await;
        gone.map(|_| location.clone()).ok_or(Error::NotFound {
            path: location.to_string(),
            source: "404".into(),
        })
    }
}

#[async_trait]
impl ObjectStore for Access {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let is_create = matches!(options.mode, PutMode::Create);
        self.put(location.to_string(), payload.into(), is_create)
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("{location}: small objects are put whole")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.get(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let access = Self {
            store: Arc::clone(&self.store),
            host: Arc::clone(&self.host),
            dice: self.dice.clone(),
        };
        let access = Arc::new(access);
        locations
            .then(move |location| {
                let access = Arc::clone(&access);
                async move { access.delete_one(location?).await }
            })
            .boxed()
    }

    // Listings may be stale, so nothing asks for one (ADR 2): whoever does fails here.
    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store
            .check
            .violation("the bucket was listed".to_owned());
        stream::empty().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        self.store
            .check
            .violation("the bucket was listed".to_owned());
        Err(unavailable("no listings"))
    }

    async fn copy_opts(&self, from: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        panic!("{from}: nothing is copied")
    }
}
