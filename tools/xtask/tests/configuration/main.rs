//! The files that other tools read: certificates, Docker Compose's, the pipelines' are what those tools expect.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod certificates;
mod compose;
mod pipelines;
mod yaml;
