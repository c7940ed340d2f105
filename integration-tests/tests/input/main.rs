//! Bad input at the Engine API: what nobody should send, and what every engine gets. The answer has
//! stock's status and words, and nothing is different afterwards: data root, mounts, links, cgroups,
//! processes, descriptors.
//!
//! `answers` and `archives` compare with tables below `golden` that were taken down from stock Docker;
//! the other files break what a table cannot hold. All of it runs over stock with `ENGINE=stock`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod answers;
mod archives;
mod cuts;
mod http;
mod seams;
mod table;
mod world;
