//! Where artifacts lie, and how they get there.
//!
//! An artifact gets its name among the objects once it is flushed, and not before. One that need not outlive a power cut
//! lies apart until somebody wants it to: what lies there is looked at when the store is opened, since after a power cut
//! it may have its length and nothing else.

use super::{
    disk::{
        Durability, StoreError, artifacts_in, disk, entries, flush_file, make_directory, pieces,
        remove_if_there, rename, sync_directory, write_file,
    },
    store::Store,
    tree::{Tree, TreeBuilder},
};
use daitn_messages::ids::ArtifactId;
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Read of a file at once.
pub(super) const STEP_BYTES: usize = 256 * 1024;

impl Store {
    /// Where a flushed artifact lies.
    pub(super) fn object(&self, id: ArtifactId) -> PathBuf {
        let name = id.to_string();
        self.shared.directory.join("objects").join(&name[..2]).join(name)
    }

    /// Where one lies that was never flushed.
    fn loose(&self, id: ArtifactId) -> PathBuf {
        self.shared.directory.join("loose").join(id.to_string())
    }

    pub(super) fn partial(&self, id: ArtifactId) -> PathBuf {
        self.shared.directory.join("partial").join(id.to_string())
    }

    /// Where an artifact may lie, in the order in which to look: it may move to the objects in the meantime, and never
    /// moves back.
    pub(super) fn ways_to(&self, id: ArtifactId) -> [PathBuf; 3] {
        [self.object(id), self.loose(id), self.object(id)]
    }

    /// Where an artifact lies now, with its length.
    pub(super) fn find(&self, id: ArtifactId) -> Option<(PathBuf, u64)> {
        self.ways_to(id).into_iter().find_map(|path| {
            let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
            Some((path, metadata.len()))
        })
    }

    /// Gives a written file and its piece hashes their place; its room in the store is the artifact's from then on.
    pub(super) fn place(
        &self,
        id: ArtifactId,
        tree: &Tree,
        from: &Path,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let mut before = self.find(id);
        if before.as_ref().is_some_and(|(_, bytes)| *bytes != tree.bytes()) {
            self.damaged(id, 0);
            before = None;
        }
        let object = self.object(id);
        let to = match durability {
            // It is durable already.
            Durability::Transient if before.as_ref().is_some_and(|(path, _)| *path == object) => {
                remove_if_there(from)?;
                self.release(tree.bytes());
                return Ok(());
            }
            Durability::Transient => self.loose(id),
            Durability::Durable => {
                make_directory(directory_of(&object))?;
                object.clone()
            }
        };
        // First the hashes, so that an artifact is never without.
        if tree.n_pieces() > 1 {
            let temp = self.temp();
            write_file(&temp, &tree.to_bytes(), durability)?;
            rename(&temp, &pieces(&to))?;
        }
        rename(from, &to)?;
        if durability == Durability::Durable {
            self.sync_way_to(&object)?;
            remove_both(&self.loose(id))?;
        }
        if let Some((_, bytes)) = before {
            self.release(bytes);
        }
        Ok(())
    }

    /// Makes an artifact durable that was put or fetched without that. Blocks.
    ///
    /// # Errors
    /// Where it is not here, or the disk fails.
    pub fn flush(&self, id: ArtifactId) -> Result<(), StoreError> {
        let (from, to) = (self.loose(id), self.object(id));
        match File::open(&from) {
            Ok(file) => {
                flush_file(&file, &from)?;
                make_directory(directory_of(&to))?;
                let hashes = pieces(&from);
                if let Ok(file) = File::open(&hashes) {
                    flush_file(&file, &hashes)?;
                    rename_if_there(&hashes, &pieces(&to))?;
                }
                rename_if_there(&from, &to)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(disk("opening", &from, error)),
        }
        // Whoever gave it its name there may not have flushed that yet.
        if to.is_file() {
            self.sync_way_to(&to)
        } else {
            Err(StoreError::NotHere(id))
        }
    }

    /// The directory of an object, and the one above it: who made it may not have flushed that.
    fn sync_way_to(&self, object: &Path) -> Result<(), StoreError> {
        sync_directory(directory_of(object))?;
        sync_directory(&self.shared.directory.join("objects"))
    }

    /// Removes an artifact, and what there is of it partially. Returns whether there was any. Who has it open reads
    /// on. Blocks.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn remove(&self, id: ArtifactId) -> Result<bool, StoreError> {
        Ok(
            self.forget(&self.loose(id))?
                | self.forget(&self.object(id))?
                | self.forget(&self.partial(id))?,
        )
    }

    fn forget(&self, path: &Path) -> Result<bool, StoreError> {
        let Ok(metadata) = fs::metadata(path) else {
            return Ok(false);
        };
        let was_there = remove_if_there(path)?;
        if was_there {
            self.release(metadata.len());
        }
        remove_if_there(&pieces(path))?;
        Ok(was_there)
    }

    /// Looks at what was not flushed before this start: what a power cut tore goes.
    pub(super) fn look_at_loose(&self) -> Result<(), StoreError> {
        let directory = self.shared.directory.join("loose");
        for (id, _) in artifacts_in(&directory)? {
            let path = self.loose(id);
            if self.object(id).is_file() {
                remove_both(&path)?;
            } else if !is_whole(id, &path)? {
                tracing::info!(artifact = %id, "an artifact that was not flushed is not whole any more, and is removed");
                remove_both(&path)?;
            }
        }
        for path in entries(&directory)? {
            if path.extension().is_some() && !path.with_extension("").exists() {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// Whether an artifact is here and what its name says, all of it. If it is not what its name says it goes. Blocks.
    pub(super) fn is_sound(&self, id: ArtifactId) -> Result<bool, StoreError> {
        let Some((path, _)) = self.find(id) else {
            return Ok(false);
        };
        let sound = is_whole(id, &path)?;
        if !sound {
            self.damaged(id, 0);
        }
        Ok(sound)
    }

    /// An artifact that is here is not what its name says: it goes, so that it is fetched or made again.
    pub(super) fn damaged(&self, id: ArtifactId, piece: u64) -> StoreError {
        let error = StoreError::Damaged { artifact: id, piece };
        match self.forget(&self.loose(id)).and(self.forget(&self.object(id))) {
            Ok(_) => tracing::error!("{error}; it is removed"),
            Err(why) => tracing::error!("{error}, and cannot be removed: {why}"),
        }
        error
    }
}

/// The name and the piece hashes of what a file holds.
pub(super) fn hashed(mut file: &File, path: &Path) -> Result<(ArtifactId, Tree), StoreError> {
    let mut builder = TreeBuilder::new();
    let mut buffer = vec![0u8; STEP_BYTES];
    loop {
        match file.read(&mut buffer).map_err(|e| disk("reading", path, e))? {
            0 => return Ok(builder.finish()),
            n_bytes => builder.push(&buffer[..n_bytes]),
        }
    }
}

fn is_whole(id: ArtifactId, path: &Path) -> Result<bool, StoreError> {
    let file = File::open(path).map_err(|e| disk("opening", path, e))?;
    Ok(hashed(&file, path)?.0 == id)
}

fn directory_of(object: &Path) -> &Path {
    object.parent().expect("objects lie two levels down")
}

/// A file and its piece hashes.
fn remove_both(path: &Path) -> Result<(), StoreError> {
    remove_if_there(path)?;
    remove_if_there(&pieces(path)).map(drop)
}

/// Somebody else may have done it already.
fn rename_if_there(from: &Path, to: &Path) -> Result<(), StoreError> {
    match rename(from, to) {
        Err(StoreError::Disk { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}
