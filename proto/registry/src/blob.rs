//! A blob as a stream that survives cut connections: it goes on from the byte it stopped at, on
//! the same host or the next.

use crate::error::RegistryError;
use crate::http1::Body;
use crate::repository::Repository;
use bytes::{Buf, Bytes};
use http::StatusCode;
use oci_image::manifest::Descriptor;

pub struct BlobReader {
    repository: Repository,
    descriptor: Descriptor,
    position: u64,
    /// Bytes at the head of the answer that we have already.
    skip: u64,
    body: Option<Body>,
    failures: u32,
}

impl BlobReader {
    pub(crate) async fn open(
        repository: Repository,
        descriptor: Descriptor,
        offset: u64,
    ) -> Result<Self, RegistryError> {
        let mut reader =
            Self { repository, descriptor, position: offset, skip: 0, body: None, failures: 0 };
        reader.connect().await?;
        Ok(reader)
    }

    /// How many bytes of the blob have been handed out, `offset` included.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next piece; `None` when the announced size is reached.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.descriptor.size > 0 && self.position == self.descriptor.size {
                // Read to the end, so that the connection may serve again.
                if let Some(mut body) = self.body.take()
                    && let Ok(Some(more)) = body.chunk().await
                {
                    let got = self.position + more.len() as u64;
                    return Err(RegistryError::Size { got, want: self.descriptor.size });
                }
                return Ok(None);
            }
            let Some(body) = &mut self.body else {
                self.connect().await?;
                continue;
            };
            match body.chunk().await {
                Ok(Some(mut chunk)) => {
                    if self.skip > 0 {
                        let count = usize::try_from(self.skip).unwrap_or(usize::MAX);
                        let count = count.min(chunk.len());
                        chunk.advance(count);
                        self.skip -= count as u64;
                        if chunk.is_empty() {
                            continue;
                        }
                    }
                    self.position += chunk.len() as u64;
                    if self.descriptor.size > 0 && self.position > self.descriptor.size {
                        let (got, want) = (self.position, self.descriptor.size);
                        return Err(RegistryError::Size { got, want });
                    }
                    self.failures = 0;
                    return Ok(Some(chunk));
                }
                Ok(None) if self.descriptor.size == 0 => return Ok(None),
                Ok(None) => self.cut("the server ended the blob early".to_owned()).await?,
                Err(error) => self.cut(error.to_string()).await?,
            }
        }
    }

    /// The connection is gone: wait a little, or give up.
    async fn cut(&mut self, reason: String) -> Result<(), RegistryError> {
        self.body = None;
        self.failures += 1;
        let client = self.repository.client().clone();
        if self.failures >= client.options().attempts {
            return Err(RegistryError::Blob {
                digest: self.descriptor.digest.clone(),
                reason: format!("{reason} at byte {} of {}", self.position, self.descriptor.size),
            });
        }
        tracing::debug!(digest = %self.descriptor.digest, position = self.position, reason, "blob cut");
        tokio::time::sleep(client.backoff(self.failures)).await;
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), RegistryError> {
        let repository = self.repository.clone();
        let mut last = None;
        for host in repository.hosts().iter().filter(|host| host.pull) {
            let digest = self.descriptor.digest.clone();
            let position = self.position;
            let open = || repository.blob_at(host, &digest, position);
            match repository.patiently(open).await {
                Ok((parts, body)) => {
                    self.skip = match parts.status {
                        StatusCode::PARTIAL_CONTENT => {
                            let start = range_start(&parts.headers).unwrap_or(position);
                            match position.checked_sub(start) {
                                Some(skip) => skip,
                                None => {
                                    last = Some(RegistryError::Blob {
                                        digest,
                                        reason: "the server skipped bytes".to_owned(),
                                    });
                                    continue;
                                }
                            }
                        }
                        // The server does not know ranges: read past what we have.
                        _ => position,
                    };
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) => {
                    if last.is_none() || !host.mirror {
                        last = Some(error);
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| self.repository.no_host()))
    }
}

/// The first byte of a `Content-Range: bytes 5-9/10`.
fn range_start(headers: &http::HeaderMap) -> Option<u64> {
    let text = headers.get(http::header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod unit {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_begins_where_it_says(
            start: u64,
            rest in "[0-9-/*]{0,8}",
            broken in "[bytes 0-9-/*]{0,12}",
        ) {
            let header = |text: &str| {
                let value = http::HeaderValue::from_str(text).unwrap();
                http::HeaderMap::from_iter([(http::header::CONTENT_RANGE, value)])
            };
            prop_assert_eq!(range_start(&header(&format!("bytes {start}-{rest}"))), Some(start));
            std::hint::black_box(range_start(&header(&broken)));
        }
    }
}
