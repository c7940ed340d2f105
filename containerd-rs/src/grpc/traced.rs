//! Calls that are part of a trace: named by their caller in the metadata, with the file for the spans.

use trace_log::task::Here;
use trace_log::{CALLER_KEY, LOG_KEY, Place};

/// Where a call stands, if it is part of a trace.
pub(super) fn asked(headers: &http::HeaderMap) -> Option<Here> {
    let text = |key| headers.get(key)?.to_str().ok();
    Some(Here::new("containerd-rs", Place::of(text(CALLER_KEY)?, text(LOG_KEY)?)?))
}

/// `Tasks.Create`, for `/containerd.services.tasks.v1.Tasks/Create`.
pub(super) fn name(path: &str) -> String {
    let (service, method) = path.rsplit_once('/').unwrap_or_default();
    let service = service.rsplit('.').next().unwrap_or_default();
    format!("{service}.{method}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_part_of_a_trace_if_both_keys_say_so() {
        let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let log = "/run/4bf92f3577b34da6a3ce929d0e0e4736.spans";
        let headers = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| (http::HeaderName::from_static(key), value.parse().unwrap()));
            pairs.collect::<http::HeaderMap>()
        };
        let place = asked(&headers(&[(CALLER_KEY, caller), (LOG_KEY, log)])).unwrap().place();
        assert_eq!(
            (place.caller.to_string().as_str(), place.log.path().to_str()),
            (caller, Some(log))
        );
        for other in [
            &[][..],
            &[(CALLER_KEY, caller)],
            &[(LOG_KEY, log)],
            &[(CALLER_KEY, "x"), (LOG_KEY, log)],
        ] {
            assert!(asked(&headers(other)).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_call_goes_by_service_and_method() {
        assert_eq!(name("/containerd.services.tasks.v1.Tasks/Create"), "Tasks.Create");
        assert_eq!(name(""), ".");
    }
}
