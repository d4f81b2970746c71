//! The fault matrix: one test for each way in which brokers, networks and programs fail, and after each the
//! same questions: is a confirmed message lost, is the broker as it was configured, does a password show?
//!
//! `FAULTS_SCALE=long` asks for the long counts; `FAULTS_REPORT` names a folder for a record of each row.

mod support;

mod consumers;
mod network;
mod nodes;
mod publishing;
mod refusals;
mod shutdown;
mod tls;
