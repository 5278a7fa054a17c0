//! node

pub mod api;
pub mod assets;
pub mod cli;
pub mod config;
pub mod metrics;
