//! oci-image.
