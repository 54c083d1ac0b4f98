//! Checkpoints where every machine can read them, so that another process goes on where one ended.
//!
//! A lane's newest checkpoints are listed in small JSON files, `lane-…/checkpoint-SEQ.json`, each of which names the
//! objects it is made of. An object's name ends in a hash of what it holds, so that two processes that believe to
//! have the lane never overwrite each other's: whichever list is read, it is of a state that decisions were made
//! from, and recovery goes on from there through the log.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use scoring::SegmentId;
use serde::{Deserialize, Serialize};
use url::Url;
use xxhash_rust::xxh3::xxh3_128;

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::generations::Generations;
use crate::lane::Lane;

/// The newest, and one to fall back on.
const KEPT: usize = 2;
/// Objects that no list names are removed when they are older: a list that names them may be on its way.
const GRACE_SECONDS: i64 = 600;
/// Objects copied at a time.
const AT_ONCE: usize = 8;

/// A store of checkpoints.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// What a checkpoint is made of.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    /// The object with the checkpoint's file.
    checkpoint: String,
    /// The objects with its segments, by reservoir and number.
    segments: Vec<(u32, u64, String)>,
}

/// The objects that segments have been copied to: a segment never changes.
#[derive(Debug, Default)]
pub(crate) struct Copied(HashMap<(PathBuf, SegmentId), String>);

impl Remote {
    /// The store at a URL; `None` without one.
    pub(crate) fn open(url: &str) -> anyhow::Result<Option<Self>> {
        if url.is_empty() {
            return Ok(None);
        }
        let parsed = Url::parse(url).with_context(|| format!("`{url}` is not a URL"))?;
        if parsed.scheme() == "file"
            && let Ok(dir) = parsed.to_file_path()
        {
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        // Keys and regions of S3 come from the variables that its own tools read.
        let options = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
        let (store, prefix) = object_store::parse_url_opts(&parsed, options).with_context(|| {
            format!("`{url}` is no store that is known: write file:///… or s3://bucket/…")
        })?;
        Ok(Some(Self { store: store.into(), prefix }))
    }

    /// What is wrong with a URL, without looking for what it names.
    pub(crate) fn check(url: &str) -> Result<(), String> {
        let known = ["file:///", "s3://"];
        if url.is_empty() || known.iter().any(|scheme| url.starts_with(scheme)) {
            return Ok(());
        }
        Err("must be empty, file:///… or s3://bucket/…".to_owned())
    }

    /// Copies a checkpoint that is durable here, then removes what is of no more use.
    pub(crate) async fn push(
        &self,
        lane: Lane,
        checkpoints: &Checkpoints,
        checkpoint: &Checkpoint,
        copied: &mut Copied,
    ) -> anyhow::Result<()> {
        let dir = self.dir(lane);
        let present: BTreeSet<Path> =
            self.list(&dir).await?.into_iter().map(|object| object.location).collect();
        let known = |id: SegmentId| copied.0.get(&(checkpoints.dir().to_owned(), id)).cloned();
        let ids = checkpoint.state.segments.iter().map(|&id| (id, known(id)));
        let segments: Vec<(u32, u64, String)> = futures::stream::iter(ids.collect::<Vec<_>>())
            .map(|(id, known)| {
                let (dir, present) = (&dir, &present);
                async move {
                    if let Some(name) =
                        known.filter(|name| present.contains(&dir.clone().join(name.as_str())))
                    {
                        return anyhow::Ok((id.reservoir, id.number, name));
                    }
                    let bytes = checkpoints.segments().get(id).context("reading a segment")?;
                    let name = format!("{}-{:012}-{:032x}.seg", id.reservoir, id.number, xxh3_128(&bytes));
                    let at = dir.clone().join(name.as_str());
                    self.store
                        .put(&at, bytes.to_vec().into())
                        .await
                        .with_context(|| format!("writing {at}"))?;
                    Ok((id.reservoir, id.number, name))
                }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let key = |reservoir, number| (checkpoints.dir().to_owned(), SegmentId { reservoir, number });
        copied.0 = segments.iter().map(|(r, n, name)| (key(*r, *n), name.clone())).collect();
        let file = checkpoint.encode();
        let name = format!("state-{:020}-{:032x}.bin", checkpoint.progress.next_seq, xxh3_128(&file));
        self.store.put(&dir.clone().join(name.as_str()), file.into()).await.context("writing the state")?;
        let manifest = serde_json::to_vec(&Manifest { checkpoint: name, segments })?;
        let at = dir.clone().join(list_name(checkpoint.progress.next_seq));
        self.store.put(&at, manifest.into()).await.with_context(|| format!("writing {at}"))?;
        self.clean(&dir).await
    }

    /// Fetches the newest checkpoint of a lane when it is newer than all that are here.
    pub(crate) async fn fetch_newer(&self, lane: Lane, generations: &Generations) -> anyhow::Result<()> {
        let dir = self.dir(lane);
        let Some((seq, at)) = newest_lists(&self.list(&dir).await?).into_iter().next() else { return Ok(()) };
        let here = generations.newest_seq().context("listing checkpoints")?;
        if here.is_some_and(|here| here >= seq) {
            return Ok(());
        }
        let manifest: Manifest =
            serde_json::from_slice(&self.get(&at).await?).with_context(|| format!("reading {at}"))?;
        let state = self.get(&dir.clone().join(manifest.checkpoint.as_str())).await?;
        let checkpoints = generations.create().context("making a directory for the windows")?;
        let segments = checkpoints.segments();
        let fetched = futures::stream::iter(manifest.segments)
            .map(|(reservoir, number, name)| {
                let at = dir.clone().join(name.as_str());
                async move { anyhow::Ok((SegmentId { reservoir, number }, self.get(&at).await?)) }
            })
            .buffered(AT_ONCE);
        let mut fetched = std::pin::pin!(fetched);
        while let Some((id, bytes)) = fetched.try_next().await? {
            segments.put(id, bytes.to_vec().into());
        }
        checkpoints.adopt(&state).context("keeping the checkpoint that was fetched")?;
        tracing::info!(lane = lane.number, next_seq = seq, "goes on from a checkpoint of another process");
        Ok(())
    }

    fn dir(&self, lane: Lane) -> Path {
        self.prefix.clone().join(lane.name())
    }

    async fn list(&self, dir: &Path) -> anyhow::Result<Vec<ObjectMeta>> {
        self.store.list(Some(dir)).try_collect().await.with_context(|| format!("listing {dir}"))
    }

    async fn get(&self, at: &Path) -> anyhow::Result<bytes::Bytes> {
        let read = async { self.store.get(at).await?.bytes().await };
        read.await.with_context(|| format!("reading {at}"))
    }

    /// Removes old lists, and then objects that no list names.
    async fn clean(&self, dir: &Path) -> anyhow::Result<()> {
        let objects = self.list(dir).await?;
        let lists = newest_lists(&objects);
        for (_, old) in lists.iter().skip(KEPT) {
            self.store.delete(old).await.with_context(|| format!("removing {old}"))?;
        }
        let mut named = BTreeSet::new();
        for (_, list) in lists.iter().take(KEPT) {
            let manifest: Manifest =
                serde_json::from_slice(&self.get(list).await?).with_context(|| format!("reading {list}"))?;
            named.insert(dir.clone().join(manifest.checkpoint.as_str()));
            named.extend(manifest.segments.iter().map(|(_, _, name)| dir.clone().join(name.as_str())));
        }
        // By the store's own clock.
        let now = objects.iter().map(|object| object.last_modified.timestamp()).max().unwrap_or_default();
        for object in &objects {
            let is_old = now - object.last_modified.timestamp() > GRACE_SECONDS;
            if is_old && seq_of(&object.location).is_none() && !named.contains(&object.location) {
                self.store
                    .delete(&object.location)
                    .await
                    .with_context(|| format!("removing {}", object.location))?;
            }
        }
        Ok(())
    }
}

fn list_name(seq: u64) -> String {
    format!("checkpoint-{seq:020}.json")
}

fn seq_of(path: &Path) -> Option<u64> {
    path.filename()?.strip_prefix("checkpoint-")?.strip_suffix(".json")?.parse().ok()
}

/// The lists among some objects, newest first.
fn newest_lists(objects: &[ObjectMeta]) -> Vec<(u64, Path)> {
    let lists =
        objects.iter().filter_map(|object| Some((seq_of(&object.location)?, object.location.clone())));
    let mut lists: Vec<_> = lists.collect();
    lists.sort_unstable_by_key(|&(seq, _)| std::cmp::Reverse(seq));
    lists
}
