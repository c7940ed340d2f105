//! Images: a name for a descriptor. Key: `image␀namespace␀name`.

use std::borrow::Cow;

use crate::context::{Context, Namespace};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::filter::{Fields, Filters, label};
use crate::lease;
use crate::store::labels::{apply_path, check_labels, drop_empty};
use crate::store::record::{Descriptor, Image, Timestamp};
use crate::store::{Reader, Store, check_name, key, namespaces, prefix};

#[derive(Clone)]
pub(crate) struct Images {
    store: Store,
    events: Events,
}

impl Images {
    pub(crate) fn new(store: Store, events: Events) -> Self {
        Self { store, events }
    }

    pub(crate) fn get(&self, namespace: &Namespace, name: &str) -> Result<Image> {
        let found = self.store.snapshot()?.record(&at(namespace, name))?;
        found.ok_or_else(|| Error::not_found("image", name))
    }

    pub(crate) fn list(&self, namespace: &Namespace, filters: &Filters) -> Result<Vec<Image>> {
        let mut images: Vec<Image> =
            self.store.snapshot()?.records(&prefix(IMAGE, &[namespace.as_str()]))?;
        images.retain(|image| filters.matches(image));
        Ok(images)
    }

    /// The times are set here.
    pub(crate) async fn create(&self, context: &Context, mut image: Image) -> Result<Image> {
        check(&image)?;
        drop_empty(&mut image.labels);
        image.created_at = Timestamp::now();
        image.updated_at = image.created_at;
        let scope = context.clone();
        let image = self
            .store
            .write(move |transaction| {
                let at = at(&scope.namespace, &image.name);
                if transaction.exists(&at)? {
                    return Err(Error::already_exists("image", image.name));
                }
                namespaces::ensure(transaction, &scope.namespace)?;
                lease::hold(transaction, &scope, "images", &image.name)?;
                transaction.put(&at, &image)?;
                Ok(image)
            })
            .await?;
        self.events.image_create(&context.namespace, &image);
        Ok(image)
    }

    /// Paths of the mask: `labels`, `labels.<name>`, `target`, `annotations.…`; none means all.
    pub(crate) async fn update(
        &self,
        context: &Context,
        new: Image,
        mask: Vec<String>,
    ) -> Result<Image> {
        check_name("image name", &new.name)?;
        let scope = context.clone();
        let image = self
            .store
            .write(move |transaction| {
                let at = at(&scope.namespace, &new.name);
                let found: Option<Image> = transaction.record(&at)?;
                let mut image = found.ok_or_else(|| Error::not_found("image", &new.name))?;
                if mask.is_empty() {
                    image.labels = new.labels;
                    image.target = new.target;
                } else {
                    for path in &mask {
                        if apply_path(path, &mut image.labels, &new.labels) {
                            continue;
                        }
                        match path.as_str() {
                            "target" => image.target = new.target.clone(),
                            "annotations" | "target.annotations" => {
                                image.target.annotations = new.target.annotations.clone();
                            }
                            _ => {
                                return Err(Error::invalid(format!(
                                    "cannot update {path} field on image \"{}\"",
                                    image.name
                                )));
                            }
                        }
                    }
                }
                check(&image)?;
                drop_empty(&mut image.labels);
                image.updated_at = Timestamp::now();
                transaction.put(&at, &image)?;
                Ok(image)
            })
            .await?;
        self.events.image_update(&context.namespace, &image);
        Ok(image)
    }

    /// With a target, only while the name still points there. The caller starts a collection.
    pub(crate) async fn delete(
        &self,
        context: &Context,
        name: &str,
        target: Option<Descriptor>,
    ) -> Result<()> {
        let (scope, image) = (context.clone(), name.to_owned());
        self.store
            .write(move |transaction| {
                let at = at(&scope.namespace, &image);
                let found: Option<Image> = transaction.record(&at)?;
                let found = found.ok_or_else(|| Error::not_found("image", &image))?;
                if target.is_some_and(|target| target.digest != found.target.digest) {
                    // Compat: a name that moved on counts as gone.
                    return Err(Error::NotFound { what: "image target of", name: image });
                }
                lease::release(transaction, &scope, "images", &image);
                transaction.remove(&at);
                Ok(())
            })
            .await?;
        self.events.image_delete(&context.namespace, name);
        Ok(())
    }
}

impl Fields for Image {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.split_first()? {
            (first, []) if first == "name" => Some(self.name.as_str().into()),
            (first, [field]) if first == "target" && field == "digest" => {
                Some(self.target.digest.as_str().into())
            }
            (first, [field]) if first == "target" && field == "mediatype" => {
                Some(self.target.media_type.as_str().into())
            }
            (first, rest) if first == "labels" => label(&self.labels, rest),
            (first, rest) if first == "annotations" => label(&self.target.annotations, rest),
            _ => None,
        }
    }
}

fn check(image: &Image) -> Result<()> {
    check_name("image name", &image.name)?;
    check_labels(&image.labels)?;
    crate::content::check_digest(&image.target.digest)?;
    if image.target.size <= 0 {
        return Err(Error::invalid(format!("Target.Size must be > 0 for {}", image.target.digest)));
    }
    if image.target.media_type.is_empty() {
        return Err(Error::invalid("Target.MediaType must be set"));
    }
    Ok(())
}

fn at(namespace: &Namespace, name: &str) -> Vec<u8> {
    key(IMAGE, &[namespace.as_str(), name])
}

pub(crate) const IMAGE: &str = "image";
