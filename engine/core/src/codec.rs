//! Bytes to Arrow columns.
