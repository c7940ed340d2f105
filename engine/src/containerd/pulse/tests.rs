use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::Endpoint;

use super::*;

/// A client of what listens at `socket`.
fn client(socket: &Path) -> VersionClient<Watched> {
    let socket = socket.to_owned();
    let connect = move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    };
    let channel = Endpoint::from_static("http://containerd")
        .connect_with_connector_lazy(tower::service_fn(connect));
    VersionClient::new(Watched::new(channel))
}

/// The beginning of an HTTP/2 connection as its server says it, and of an answer: no settings; headers of
/// stream 1 (`:status: 200`, `content-type: application/grpc`), which are not the end of it.
fn half_an_answer() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut headers = vec![0x88, 0x5f, 16];
    headers.extend(b"application/grpc");
    bytes.extend([0, 0, u8::try_from(headers.len()).unwrap(), 1, 4, 0, 0, 0, 1]);
    bytes.extend(headers);
    bytes
}

/// What a call comes to whose containerd says this, once it was asked, and goes.
async fn asked_and_gone(said: Vec<u8>) -> tonic::Status {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let containerd = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let (mut asked, mut part) = (Vec::new(), [0; 4096]);
        while !has_headers(&asked) {
            let count = connection.read(&mut part).await.unwrap();
            asked.extend(&part[..count]);
        }
        connection.write_all(&said).await.unwrap();
    };
    let mut client = client(&socket);
    let (status, ()) = tokio::join!(client.version(()), containerd);
    status.unwrap_err()
}

/// Whether a frame of headers came, whole.
fn has_headers(asked: &[u8]) -> bool {
    let mut rest = asked.get(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()..).unwrap_or_default();
    while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if after.len() < length {
            return false;
        }
        if *kind == 1 {
            return true;
        }
        rest = &after[length..];
    }
    false
}

#[tokio::test]
async fn a_call_whose_containerd_goes_before_it_answers_is_unavailable() {
    let status = asked_and_gone(Vec::new()).await;
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(status.message().starts_with("connection to containerd: "), "{status:?}");
}

#[tokio::test]
async fn a_call_whose_containerd_goes_in_the_middle_of_an_answer_is_unavailable() {
    let status = asked_and_gone(half_an_answer()).await;
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(status.message().starts_with("connection to containerd: "), "{status:?}");
}

#[tokio::test]
async fn a_call_to_where_nobody_listens_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let status = client(&directory.path().join("nobody.sock")).version(()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
}
