//! The least of an HTTP/1.1 client over a unix socket: one connection, one request at a time.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    pub(crate) fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(600)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The body of a successful answer; one whose end is not told is read until the connection is
    /// closed.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> anyhow::Result<Vec<u8>> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(head.as_bytes())?;
        let status = self.line()?;
        let mut length = None;
        let mut chunked = false;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>()?);
            }
            chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        }
        let code = status.split(' ').nth(1).context("no status")?.to_owned();
        let body = if code == "204" || code == "304" {
            Vec::new()
        } else if chunked {
            self.chunks()?
        } else if let Some(length) = length {
            self.bytes(length)?
        } else {
            let mut rest = Vec::new();
            self.stream.read_to_end(&mut rest)?;
            rest
        };
        if !code.starts_with('2') {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// The same for JSON.
    pub(crate) fn json(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> anyhow::Result<serde_json::Value> {
        let answer = self.request(method, path, body)?;
        serde_json::from_slice(&answer).with_context(|| format!("{method} {path}"))
    }

    /// Creates something and gives its id.
    pub(crate) fn create(&mut self, path: &str, body: &str) -> anyhow::Result<String> {
        let answer = self.json("POST", path, body)?;
        Ok(answer["Id"].as_str().context("no Id")?.to_owned())
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }

    fn bytes(&mut self, count: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn chunks(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line()?;
            let size = usize::from_str_radix(&size, 16).with_context(|| size.clone())?;
            body.extend(self.bytes(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}
