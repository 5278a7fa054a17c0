//! The worker's end of the conversation with the coordinator: lines on stdin and stdout.

use std::io::{self, Write as _};

use crate::wire::{Notice, Order};

/// An order longer than this is not one; a settlement of ten thousand publishers with refusals is far below.
const ORDER_BYTES_MAX: usize = 256 << 20;

/// Orders that arrive without the worker ever waiting for them.
#[derive(Debug, Default)]
pub(super) struct Orders {
    rest: Vec<u8>,
    ended: bool,
}

impl Orders {
    /// Waits for the first order and takes it; what came with it is kept for [`Orders::read`].
    ///
    /// # Errors
    /// The coordinator has gone or is not one.
    pub(super) fn wait_first(&mut self) -> io::Result<Order> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.rest) {
                let order = serde_json::from_slice(&self.rest[..end]);
                self.rest.drain(..=end);
                return Ok(order?);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes all orders that are there. Stdin must not block by now.
    ///
    /// # Errors
    /// Stdin is broken or carries something else than orders; the worker should end.
    pub(super) fn read(&mut self) -> io::Result<Vec<Order>> {
        loop {
            match self.fill() {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let Some(end) = memchr::memrchr(b'\n', &self.rest) else { return Ok(Vec::new()) };
        let lines = self.rest[..end].split(|byte| *byte == b'\n');
        let orders = lines.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect();
        self.rest.drain(..=end);
        orders
    }

    /// Whether the coordinator has gone.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// One read, straight from the descriptor: a buffer in between would hide lines from the readiness queue.
    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut chunk))?;
        self.rest.extend_from_slice(&chunk[..length]);
        if self.rest.len() > ORDER_BYTES_MAX {
            return Err(io::Error::other("endless order"));
        }
        Ok(length)
    }
}

/// Sends one notice.
///
/// # Errors
/// The coordinator has gone; the worker should end.
pub(super) fn send(notice: &Notice) -> io::Result<()> {
    let mut line = serde_json::to_vec(notice)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
