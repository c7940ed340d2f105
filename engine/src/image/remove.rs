//! `docker rmi` and `docker image prune`.

use docker_api::filters::{FilterError, Filters};
use docker_api::image::{ImageDeleted, ImagesPruned};
use oci_image::reference::Reference;

use super::catalog::{DANGLING, Named};
use super::view::{created_seconds, grouped};
use super::{ImageError, Images};

/// Containers made from an image: id and whether it runs.
pub(crate) type Users = Vec<(String, bool)>;

/// What is to be done, decided from what is there. Pure.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// These names go, and with the last the image.
    Remove(Vec<String>),
    /// The last name goes, but containers need the image: it stays under a made up one.
    Detach(String),
}

impl Images {
    /// `DELETE /images/{name}`.
    pub(crate) async fn remove(
        &self,
        wanted: &str,
        force: bool,
        users: impl Fn(&str) -> Users,
    ) -> Result<Vec<ImageDeleted>, ImageError> {
        let image = self.catalog.find(wanted).await?;
        let names: Vec<Named> = self
            .catalog
            .list()
            .await?
            .into_iter()
            .filter(|other| other.target == image.target)
            .collect();
        let by_name = names_it(wanted, &image);
        let users = users(&image.target.to_string());
        let plan = plan(&image, &names, by_name, force, &users).map_err(ImageError::Conflict)?;
        let mut answer = Vec::new();
        let (gone, last) = match plan {
            Plan::Remove(gone) => {
                let last = gone.len() == names.len();
                (gone, last)
            }
            Plan::Detach(name) => {
                self.name(&image, &format!("{DANGLING}@{}", image.target)).await?;
                (vec![name], false)
            }
        };
        for name in &gone {
            self.unname(name).await?;
            let shown = names.iter().find(|other| other.name == *name).and_then(Named::reference);
            if let Some(reference) = shown {
                answer.push(ImageDeleted { untagged: Some(reference.familiar()), deleted: None });
                self.tell("untag", &image.target.to_string(), &image.target.to_string());
            }
        }
        if last {
            let id = image.target.to_string();
            self.catalog.forget(&image.target);
            self.tell("delete", &id, &id);
            answer.push(ImageDeleted { deleted: Some(id), untagged: None });
        }
        Ok(answer)
    }

    /// `POST /images/prune`: dangling ones, or with `dangling=false` every unused one.
    pub(crate) async fn prune(
        &self,
        filters: &Filters,
        users: impl Fn(&str) -> Users,
    ) -> Result<ImagesPruned, ImageError> {
        filters.only(&["dangling", "label", "label!", "until"])?;
        let dangling_only = filters.flag("dangling")?.unwrap_or(true);
        let mut before = i64::MAX;
        for text in filters.get("until") {
            before = before.min(until(text)?);
        }
        let mut pruned = ImagesPruned::default();
        for group in grouped(self.catalog.list().await?) {
            let id = group.target.to_string();
            if dangling_only && !group.references().is_empty() || !users(&id).is_empty() {
                continue;
            }
            let Ok(content) = self.catalog.content(group.first()).await else { continue };
            let labels = content.container.labels.clone().unwrap_or_default();
            if created_seconds(&content) >= before
                || !filters.labels("label", &labels)
                || filters.contains("label!") && filters.labels("label!", &labels)
            {
                continue;
            }
            let size = self.catalog.size(&content).await;
            let deleted = pruned.images_deleted.get_or_insert_default();
            for name in &group.names {
                self.unname(&name.name).await?;
                if let Some(reference) = name.reference() {
                    let untagged = Some(reference.familiar());
                    deleted.push(ImageDeleted { untagged, deleted: None });
                }
            }
            self.catalog.forget(&group.target);
            self.tell("delete", &id, &id);
            deleted.push(ImageDeleted { deleted: Some(id), untagged: None });
            pruned.space_reclaimed =
                pruned.space_reclaimed.saturating_add(u64::try_from(size).unwrap_or_default());
        }
        let reclaimed = ("reclaimed".to_owned(), pruned.space_reclaimed.to_string());
        self.events.publish("image", "prune", "", [reclaimed].into());
        Ok(pruned)
    }
}

/// Whether the user typed the record's name, not an id.
fn names_it(wanted: &str, image: &Named) -> bool {
    let Ok(reference) = Reference::parse(wanted) else { return false };
    reference.digest().is_some() || reference.with_default_tag().to_string() == image.name
}

fn plan(
    image: &Named,
    names: &[Named],
    by_name: bool,
    force: bool,
    users: &Users,
) -> Result<Plan, String> {
    let short = |id: &str| {
        let hex = id.strip_prefix("sha256:").unwrap_or(id);
        hex.get(..12).unwrap_or(hex).to_owned()
    };
    let id = short(image.target.as_str());
    let all = || names.iter().map(|name| name.name.clone()).collect();
    if by_name {
        if names.len() > 1 {
            return Ok(Plan::Remove(vec![image.name.clone()]));
        }
        let Some((user, _)) = users.first() else { return Ok(Plan::Remove(all())) };
        if force {
            return Ok(Plan::Detach(image.name.clone()));
        }
        // Compat: clients and people match these sentences.
        let name = image.reference().map_or_else(|| id.clone(), |reference| reference.familiar());
        return Err(format!(
            "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its referenced image {id}",
            short(user)
        ));
    }
    if let Some((user, _)) = users.iter().find(|(_, running)| *running) {
        return Err(format!(
            "conflict: unable to delete {id} (cannot be forced) - image is being used by running container {}",
            short(user)
        ));
    }
    if force {
        return Ok(Plan::Remove(all()));
    }
    if let Some((user, _)) = users.first() {
        return Err(format!(
            "conflict: unable to delete {id} (must be forced) - image is being used by stopped container {}",
            short(user)
        ));
    }
    let mut repositories: Vec<String> =
        names.iter().filter_map(Named::reference).map(|reference| reference.name()).collect();
    repositories.sort();
    repositories.dedup();
    if repositories.len() > 1 {
        return Err(format!(
            "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
        ));
    }
    Ok(Plan::Remove(all()))
}

/// `until`: a unix time, an RFC 3339 one, or a duration before now; in unix seconds.
pub(super) fn until(text: &str) -> Result<i64, FilterError> {
    let bad = || FilterError::BadValue { key: "until".to_owned(), value: text.to_owned() };
    if let Some(nanoseconds) = docker_api::time::parse_duration(text) {
        let now = jiff::Timestamp::now().as_second();
        return Ok(now.saturating_sub(nanoseconds / 1_000_000_000));
    }
    let time = docker_api::time::parse_unix(text).or_else(|| docker_api::time::parse_rfc3339(text));
    time.map(|(seconds, _)| seconds).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use oci_image::digest::Digest;

    use super::*;

    fn named(name: &str) -> Named {
        Named {
            name: name.to_owned(),
            target: Digest::parse(&format!("sha256:{}", "ab".repeat(32))).unwrap(),
            media_type: String::new(),
            size: 1,
            updated: (0, 0),
        }
    }

    const ONE: &str = "docker.io/library/one:latest";
    const TWO: &str = "docker.io/library/two:latest";

    #[test]
    fn a_name_among_several_is_only_untagged() {
        let names = [named(ONE), named(TWO)];
        let users = vec![("c".repeat(64), true)];
        let plan = plan(&names[0], &names, true, false, &users);
        assert_eq!(plan, Ok(Plan::Remove(vec![ONE.to_owned()])));
    }

    #[test]
    fn the_last_name_of_a_used_image_needs_force_and_then_the_image_stays() {
        let names = [named(ONE)];
        let users = vec![("c".repeat(64), false)];
        assert_eq!(
            plan(&names[0], &names, true, false, &users),
            Err("conflict: unable to remove repository reference \"one:latest\" (must force) - container cccccccccccc is using its referenced image abababababab".to_owned())
        );
        assert_eq!(plan(&names[0], &names, true, true, &users), Ok(Plan::Detach(ONE.to_owned())));
    }

    #[test]
    fn by_id_running_containers_and_several_repositories_stand_in_the_way() {
        let names = [named(ONE), named(TWO)];
        let running = vec![("c".repeat(64), true)];
        let refused = plan(&names[0], &names, false, true, &running).unwrap_err();
        assert!(refused.contains("(cannot be forced) - image is being used by running container"));
        let refused = plan(&names[0], &names, false, false, &Vec::new()).unwrap_err();
        assert!(
            refused.contains("(must be forced) - image is referenced in multiple repositories")
        );
        let all = Plan::Remove(vec![ONE.to_owned(), TWO.to_owned()]);
        assert_eq!(plan(&names[0], &names, false, true, &Vec::new()), Ok(all));
    }

    #[test]
    fn a_name_is_told_from_an_id() {
        assert!(names_it("one", &named(ONE)) && names_it("one:latest", &named(ONE)));
        assert!(!names_it("abab", &named(ONE)));
    }
}
