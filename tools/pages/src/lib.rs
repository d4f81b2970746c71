//! The pages as tests: runs what they tell to type, on a real broker, and compares what is printed.
//!
//! A page is Markdown, and shows what a reader sees. What the engine needs beyond that stands in the first line of a
//! fenced block, which no reader sees:
//!
//! - `console`: commands, each after `$ `, each followed by what it prints, on both streams. They run one after the
//!   other. A command whose output ends in `^C` runs beside the blocks that follow, up to the next heading, as in a
//!   terminal of its own; then Ctrl-C is pressed. One whose output ends in `Killed` runs until a later block kills it.
//! - `console &`: its last command runs beside the following blocks as well, and ends by itself.
//! - `console not run: REASON`: what cannot run here, for one of the [`NOT_RUN`] reasons.
//! - `rust FILE#ITEM`: an item of a source file, or what stands there between the comments `// begin ITEM` and
//!   `// end ITEM`.
//! - `mermaid` is a picture; `text`, `json` and others show what is no command.
//!
//! A line `…` in an output stands for any number of lines. What differs from run to run is listed in [`differs`].

mod checks;
mod compare;
mod console;
pub mod differs;
mod excerpt;
mod page;
mod play;
pub mod programs;
mod shims;
mod translation;
mod wanted;
pub mod workspace;

pub use checks::{NOT_RUN, PLAYED_ELSEWHERE, not_run, problems};
pub use page::{Block, Page, all};
pub use play::{Problem, Stage};
pub use translation::{follow, translations};
pub use wanted::update_excerpts;
