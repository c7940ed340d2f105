//! `-info`: says which runtime this shim would call and what that can do, as a protobuf RuntimeInfo.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use prost::Message as _;
use proto::any::{TYPE_FEATURES, pack_json, unpack};
use proto::containerd::runc::v1::Options;
use proto::containerd::types::{RuntimeInfo, RuntimeVersion};

use crate::args::Args;
use crate::bundle::resolve_runtime;

pub(crate) fn print(args: &Args) -> anyhow::Result<()> {
    let mut input = Vec::new();
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        stdin.take(4 << 20).read_to_end(&mut input).context("read options")?;
    }
    let any = prost_types::Any::decode(input.as_slice()).unwrap_or_default();
    let options = unpack::<Options>(&any).unwrap_or_default();
    let runtime = resolve_runtime(&options.binary_name, args.is_stock_name())?;
    let features = Command::new(&runtime)
        .arg("features")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("call {}", runtime.display()))?;
    let info = RuntimeInfo {
        name: if args.is_stock_name() {
            "io.containerd.runc.v2"
        } else {
            "io.containerd.runc-rs.v2"
        }
        .to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }),
        options: (!any.type_url.is_empty()).then_some(any),
        // A runtime without the verb has no features to tell.
        features: features.status.success().then(|| pack_json(TYPE_FEATURES, features.stdout)),
        ..Default::default()
    };
    io::stdout().write_all(&info.encode_to_vec()).context("answer on stdout")
}
