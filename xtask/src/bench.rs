//! bench
use anyhow::Result;
#[derive(clap::Args)]
pub(crate) struct Options {}
pub(crate) fn command(_: &Options) -> Result<bool> {
    Ok(true)
}
