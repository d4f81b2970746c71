//! The files that other tools read: certificates, Docker Compose's, the pipelines' are what those tools expect.

mod certificates;
mod compose;
mod pipelines;
mod yaml;
