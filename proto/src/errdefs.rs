//! Classes of failure, and the one table from a class to gRPC, ttrpc and HTTP.
//!
//! ttrpc uses gRPC's numbers, so [`Kind::code`] serves both.

/// What went wrong, as clients tell failures apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Canceled,
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

const TABLE: [(Kind, i32, u16); 16] = [
    (Kind::Canceled, 1, 500),
    (Kind::Unknown, 2, 500),
    (Kind::InvalidArgument, 3, 400),
    (Kind::DeadlineExceeded, 4, 500),
    (Kind::NotFound, 5, 404),
    (Kind::AlreadyExists, 6, 409),
    (Kind::PermissionDenied, 7, 403),
    (Kind::ResourceExhausted, 8, 500),
    (Kind::FailedPrecondition, 9, 409),
    (Kind::Aborted, 10, 500),
    (Kind::OutOfRange, 11, 400),
    (Kind::Unimplemented, 12, 501),
    (Kind::Internal, 13, 500),
    (Kind::Unavailable, 14, 503),
    (Kind::DataLoss, 15, 500),
    (Kind::Unauthenticated, 16, 401),
];

impl Kind {
    /// The number in a gRPC or ttrpc status.
    pub fn code(self) -> i32 {
        self.row().1
    }

    /// The status of an HTTP answer.
    pub fn http_status(self) -> u16 {
        self.row().2
    }

    /// The class of a gRPC or ttrpc status; numbers outside the table are [`Kind::Unknown`].
    pub fn from_code(code: i32) -> Self {
        TABLE.iter().find(|row| row.1 == code).map_or(Self::Unknown, |row| row.0)
    }

    fn row(self) -> &'static (Self, i32, u16) {
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[1])
    }

    /// A gRPC status of this class.
    #[cfg(feature = "grpc")]
    pub fn status(self, message: impl Into<String>) -> tonic::Status {
        tonic::Status::new(tonic::Code::from_i32(self.code()), bounded(message.into()))
    }

    /// The class of a gRPC status.
    #[cfg(feature = "grpc")]
    pub fn of(status: &tonic::Status) -> Self {
        Self::from_code(status.code() as i32)
    }
}

/// A message travels in a header, and every foreign byte may take three there: of a long one its
/// beginning and its end are told. A client would take a header beyond its limit for a broken connection.
#[cfg(feature = "grpc")]
fn bounded(message: String) -> String {
    const MOST: usize = 4 << 10;
    if message.len() <= MOST {
        return message;
    }
    let first = message.floor_char_boundary(MOST / 2);
    let last = message.ceil_char_boundary(message.len() - MOST / 2);
    format!("{} [...] {}", &message[..first], &message[last..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_one_row_and_comes_back_from_its_code() {
        for (index, (kind, code, _)) in TABLE.iter().enumerate() {
            assert_eq!(usize::try_from(*code).unwrap(), index + 1);
            assert_eq!(Kind::from_code(*code), *kind);
        }
    }

    #[cfg(feature = "grpc")]
    #[test]
    fn of_a_long_message_both_ends_are_told() {
        let long = format!("begins {} ends", "\u{fe}".repeat(40_000));
        let told = Kind::Internal.status(long).message().to_owned();
        assert!(told.starts_with("begins ") && told.ends_with(" ends"), "{told}");
        assert!(told.len() < 5000, "{} bytes", told.len());
        assert_eq!(Kind::Internal.status("short").message(), "short");
    }

    #[test]
    fn a_strange_code_is_unknown() {
        assert_eq!(Kind::from_code(99), Kind::Unknown);
        assert_eq!(Kind::from_code(0), Kind::Unknown);
    }
}
