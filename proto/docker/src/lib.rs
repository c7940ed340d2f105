//! docker-api.
