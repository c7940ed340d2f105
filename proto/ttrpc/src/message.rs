//! The protocol's own messages, derived by hand: there are only four.

use prost_types::Any;

/// A call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Full service name, such as `containerd.task.v2.Task`.
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// How long the caller will wait; 0 means for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

impl Request {
    /// The first metadata value under `key`, which is compared without regard to case.
    pub fn metadata_value(&self, key: &str) -> Option<&str> {
        self.metadata
            .iter()
            .find(|pair| pair.key.eq_ignore_ascii_case(key))
            .map(|pair| pair.value.as_str())
    }
}

/// The answer to a call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

impl Response {
    /// The payload, or the status that says why there is none.
    pub fn into_result(self) -> Result<Vec<u8>, Status> {
        match self.status {
            Some(status) if status.code != 0 => Err(status),
            _ => Ok(self.payload),
        }
    }

    /// Successes carry an explicit OK status, as the reference server does.
    pub fn from_result(result: Result<Vec<u8>, Status>) -> Self {
        match result {
            Ok(payload) => Self { status: Some(Status::default()), payload },
            Err(status) => Self { status: Some(status), payload: Vec::new() },
        }
    }
}

/// One metadata pair of a request.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code.to_wire(), message: message.into(), details: Vec::new() }
    }

    /// The code as a name; a number nobody knows counts as `Unknown`.
    pub fn code(&self) -> Code {
        Code::from_wire(self.code)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// gRPC's status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    pub fn from_wire(code: i32) -> Self {
        usize::try_from(code)
            .ok()
            .and_then(|index| Self::ALL.get(index).copied())
            .unwrap_or(Self::Unknown)
    }

    pub fn to_wire(self) -> i32 {
        self as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    #[test]
    fn codes_keep_their_grpc_numbers() {
        for (number, code) in (0..).zip(Code::ALL) {
            assert_eq!(code.to_wire(), number);
            assert_eq!(Code::from_wire(number), code);
        }
        assert_eq!(Code::from_wire(99), Code::Unknown);
        assert_eq!(Code::from_wire(-1), Code::Unknown);
    }

    #[test]
    fn request_has_the_published_field_numbers() {
        let request = Request {
            service: "s".into(),
            method: "m".into(),
            payload: vec![1],
            timeout_nano: 5,
            metadata: vec![KeyValue { key: "k".into(), value: "v".into() }],
        };
        let wire = [
            0x0a, 1, b's', 0x12, 1, b'm', 0x1a, 1, 1, 0x20, 5, 0x2a, 6, 0x0a, 1, b'k', 0x12, 1,
            b'v',
        ];
        assert_eq!(request.encode_to_vec(), wire);
        assert_eq!(request.metadata_value("K"), Some("v"));
    }

    #[test]
    fn an_answer_without_status_is_a_success() {
        let answer = Response { status: None, payload: vec![4] };
        assert_eq!(answer.into_result(), Ok(vec![4]));
        let refused = Response::from_result(Err(Status::new(Code::NotFound, "no")));
        assert_eq!(refused.into_result().unwrap_err().code(), Code::NotFound);
    }

    prop_compose! {
        fn requests()(
            service in "[a-z.A-Z]{0,12}",
            method in "\\PC{0,6}",
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            timeout_nano: i64,
            metadata in proptest::collection::vec(("[a-zA-Z-]{0,6}", "\\PC{0,6}"), 0..4),
        ) -> Request {
            let pair = |(key, value)| KeyValue { key, value };
            let metadata = metadata.into_iter().map(pair).collect();
            Request { service, method, payload, timeout_nano, metadata }
        }
    }

    proptest! {
        #[test]
        fn requests_survive_their_bytes(request in requests()) {
            let again = Request::decode(request.encode_to_vec().as_slice()).unwrap();
            for pair in &again.metadata {
                let first = again.metadata.iter().find(|p| p.key.eq_ignore_ascii_case(&pair.key));
                let found = again.metadata_value(&pair.key.to_uppercase());
                prop_assert_eq!(found, first.map(|pair| pair.value.as_str()));
            }
            prop_assert_eq!(again, request);
        }

        #[test]
        fn an_answer_is_what_was_answered(
            payload: Option<Vec<u8>>,
            code in 1_i32..40,
            text in "\\PC{0,8}",
        ) {
            let status = Status { code, message: text, details: Vec::new() };
            let result = payload.ok_or(status);
            let bytes = Response::from_result(result.clone()).encode_to_vec();
            prop_assert_eq!(Response::decode(bytes.as_slice()).unwrap().into_result(), result);
        }

        #[test]
        fn broken_messages_are_refused(
            request in requests(),
            edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = request.encode_to_vec();
            for (at, byte) in edits {
                let at = at % (bytes.len() + 1);
                bytes.splice(at..(at + 1).min(bytes.len()), [byte]);
            }
            if let Ok(request) = Request::decode(bytes.as_slice()) {
                prop_assert!(request.encoded_len() <= bytes.len());
            }
            drop(Response::decode(bytes.as_slice()));
        }
    }
}
