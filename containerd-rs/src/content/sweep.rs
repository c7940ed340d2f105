//! The collector's last step: bytes that no namespace knows, ingests that nobody will finish.

use std::time::Duration;

use super::ingest::Note;
use super::{BLOB_IN, Content};
use crate::error::Result;
use crate::lease;
use crate::store::record::Timestamp;
use crate::store::{Reader as _, prefix};

impl Content {
    /// Removes what is left over; a file that cannot go is told and tried again next time.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let _alone = self.0.gate.write().await;
        let content = self.clone();
        let swept = tokio::task::spawn_blocking(move || {
            content.sweep_blobs()?;
            content.sweep_ingests()
        });
        swept.await.map_err(|_| crate::error::Error::Closed)?
    }

    fn sweep_blobs(&self) -> Result<()> {
        let snapshot = self.0.store.snapshot()?;
        let directory = self.0.root.join("blobs/sha256");
        let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let digest = format!("sha256:{}", name.to_string_lossy());
            if !snapshot.any(&prefix(BLOB_IN, &[&digest]))? {
                tracing::debug!(digest, "remove blob");
                if let Err(error) = std::fs::remove_file(entry.path()) {
                    tracing::warn!(digest, %error, "remove blob");
                }
            }
        }
        Ok(())
    }

    /// At start nobody is making one: what has no ref was never begun, or is what a power cut left.
    pub(super) fn sweep_unbegun(&self) -> Result<()> {
        for directory in self.ingests()? {
            if Note::read(&directory).is_none()
                && let Err(error) = std::fs::remove_dir_all(&directory)
            {
                tracing::warn!(directory = %directory.display(), %error, "remove ingest");
            }
        }
        Ok(())
    }

    fn sweep_ingests(&self) -> Result<()> {
        let snapshot = self.0.store.snapshot()?;
        for directory in self.ingests()? {
            let young = |at: Timestamp| {
                Timestamp::now().as_millisecond() - at.as_millisecond()
                    < i64::try_from(LIFE.as_millis()).unwrap_or(i64::MAX)
            };
            let keep = match Note::read(&directory) {
                // Being made this moment.
                None => std::fs::metadata(&directory)
                    .and_then(|found| found.modified())
                    .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < Duration::from_secs(60))),
                Some(note) if self.0.locks.held(&note.namespace, &note.reference) => true,
                Some(Note { lease: Some(name), namespace, .. }) => {
                    lease::exists(&snapshot, &namespace, &name)?
                }
                Some(note) => young(note.started_at),
            };
            if !keep && let Err(error) = std::fs::remove_dir_all(&directory) {
                tracing::warn!(directory = %directory.display(), %error, "remove ingest");
            }
        }
        Ok(())
    }
}

/// How long an ingest without a lease may rest.
const LIFE: Duration = Duration::from_secs(24 * 3600);
