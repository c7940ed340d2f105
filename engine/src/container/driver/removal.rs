//! The end of a container: asked for, waited for, tried again.

use std::sync::Arc;

use super::{Again, Owner, Reply};
use crate::container::lifecycle::{Decision, Phase, Wish};
use crate::container::record::Record;
use crate::container::start::{Layer, Run};
use crate::container::{ContainerError, rootfs};
use crate::store::Durability;

/// The pause, in milliseconds, up to which a removal waits for what is below.
const INSIST: u64 = 5_000;
impl Owner {
    pub(super) async fn ask_remove(&mut self, force: bool, volumes: bool, reply: Reply) -> bool {
        if let Some((all, replies)) = &mut self.removal {
            *all |= volumes;
            replies.push(reply);
            return false;
        }
        match self.decide(Wish::Remove { force }) {
            Err(error) => {
                drop(reply.send(Err(error)));
                false
            }
            Ok(Decision::KillFirst) if self.container.phase() != Phase::Restarting => {
                self.removal = Some((volumes, vec![reply]));
                if let Err(error) = self.signal(9, Wish::Kill).await
                    && let Some((_, replies)) = self.removal.take()
                {
                    tell(replies, Err(error));
                }
                false
            }
            Ok(_) => {
                let result = self.remove(volumes, false).await;
                let gone = result.is_ok();
                drop(reply.send(result));
                gone
            }
        }
    }

    pub(super) async fn remove(
        &mut self,
        volumes: bool,
        layer_gone: bool,
    ) -> Result<(), ContainerError> {
        self.restart_at = None;
        let again = self.remove_again.take();
        // Written down: an engine that is killed half-way goes on removing when it returns. After a power
        // cut a layer that is gone says it, but not that the volumes are to go too.
        let anonymous = self.container.record().mounts.iter().any(|mount| mount.anonymous);
        let durability =
            if volumes && anonymous { Durability::Synced } else { Durability::Written };
        self.container.note(durability, |record| {
            record.state.phase = Phase::Removing;
            record.state.remove_volumes = volumes;
        });
        let id = self.container.id.clone();
        // After some tries it goes without: what is left below is swept up by the next start of ours.
        let insist = again.is_none_or(|again| again.pause < INSIST);
        if self.container.record().state.unclean {
            let run = if insist { Run::Broken } else { Run::Ended };
            self.release(run, Layer::Keep, None).await;
            self.release_again = None;
        }
        let removed = if insist && self.container.record().state.unclean {
            Err(self.task_stays())
        } else if layer_gone {
            Ok(())
        } else {
            rootfs::remove(&self.app, &id).await
        };
        if let Err(error) = removed {
            // The record says that it is to go, so it goes when it can.
            self.container.record().state.phase = Phase::Dead;
            self.container.announce(|_| {});
            self.remove_again = Some(Again::after(again));
            return Err(error);
        }
        let mounts = self.container.record().mounts.clone();
        for mount in mounts.iter().filter(|mount| mount.kind == "volume") {
            self.app.volumes.release(&mount.name, &id).await;
            if volumes
                && mount.anonymous
                && let Err(error) = self.app.volumes.remove(&mount.name, false).await
            {
                tracing::debug!(container = id, "anonymous volume stays: {error}");
            }
        }
        let paths = self.container.paths.clone();
        rootfs::blocking(move || {
            // The record goes first.
            Record::remove(&paths);
            let dir = &paths.dir;
            std::fs::remove_dir_all(dir)
                .or_else(|error| {
                    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
                })
                .map_err(ContainerError::io(format!("remove {}", dir.display())))
        })
        .await?;
        self.app.execs.forget_container(&id);
        self.app.containers.forget(&self.container);
        self.container.announce(|snapshot| {
            snapshot.removed = true;
            snapshot.clean = true;
        });
        self.container.event(&self.app, "destroy", &[]);
        let (image, chain) = {
            let record = self.container.record();
            (record.image_id.clone(), record.chain_id.clone())
        };
        // Nobody waits for it, and the next start of ours looks, too.
        let app = Arc::clone(&self.app);
        tokio::spawn(async move { rootfs::forget_init(&app, &image, &chain).await });
        Ok(())
    }
}

/// The first hears the error itself, whoever joined later its words.
pub(super) fn tell(replies: Vec<Reply>, result: Result<(), ContainerError>) {
    let text = result.as_ref().err().map(ToString::to_string);
    let mut first = Some(result);
    for reply in replies {
        let result = first.take().unwrap_or_else(|| match &text {
            None => Ok(()),
            Some(text) => Err(ContainerError::Conflict(text.clone())),
        });
        drop(reply.send(result));
    }
}
