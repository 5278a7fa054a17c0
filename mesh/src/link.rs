//! The one connection to a peer: its lanes, its questions, its gossip, and the tasks that serve them.
//!
//! Invariants: every task ends with the link; what the tasks learn goes to the driver as an `Input`, frames and questions go
//! straight to the handler, on the same thread; once the driver called [`Link::end`], the handler hears nothing of it any more.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Event, Handler, LANES, NodeId, RefusalReason, RequestError, Responder, SendError,
    close::{CloseCode, close},
    driver::Input,
    endpoint::priority,
    greeting::{Control, Greeted, Way},
    handle::Shared,
    lane::{self, Lane, MAX_FRAME, ReadError, fill},
    membership::{Identity, MAX_PACKET},
    pipe::{self, Pipes},
    request::{self, Answered, Ask, Asks},
    wire::{
        control::MAX_HELLO,
        header::{Decoder, FrameError, Kind, frame},
    },
};

/// Gossip that found no way out for this long is worth nothing any more; this also bounds how much of it waits.
const GOSSIP_PATIENCE: Duration = Duration::from_secs(1);
/// A process that does not answer within this time is taken for dead when a later one of its node is there; the later one
/// waits so long, and less than a greeting may take.
const TWIN_PATIENCE: Duration = Duration::from_millis(400);

const _: () = assert!(MAX_HELLO <= MAX_FRAME && LANES <= 8, "one bit per lane, and greetings fit a frame");

/// What every task of a mesh needs.
pub(crate) struct Context<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) tracker: TaskTracker,
    pub(crate) shared: Arc<Shared>,
}

impl<H> Clone for Context<H> {
    fn clone(&self) -> Context<H> {
        let (handler, inputs) = (self.handler.clone(), self.inputs.clone());
        Context { handler, inputs, tracker: self.tracker.clone(), shared: self.shared.clone() }
    }
}

/// The link, as handles and tasks share it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: Identity,
    pub(crate) connection: Connection,
    lanes: [Lane; LANES as usize],
    asks: Asks,
    pub(crate) pipes: Pipes,
    ended: CancellationToken,
    up: AtomicBool,
    /// One bit per lane the peer opened.
    opened: AtomicU8,
    /// What the peer sent that is none of our protocol; the connection was closed for it.
    fault: OnceLock<String>,
}

impl Link {
    /// A link over a greeted connection; [`start`] makes it work.
    pub(crate) fn new(peer: Identity, connection: Connection) -> (Arc<Link>, mpsc::UnboundedReceiver<Ask>) {
        let (asks, waiting) = Asks::new();
        let link = Link {
            peer,
            connection,
            lanes: Default::default(),
            asks,
            pipes: Pipes::default(),
            ended: CancellationToken::new(),
            up: AtomicBool::new(true),
            opened: AtomicU8::new(0),
            fault: OnceLock::new(),
        };
        (Arc::new(link), waiting)
    }

    /// The peer's ordinal.
    pub(crate) fn node(&self) -> NodeId {
        self.peer.node
    }

    /// Where it is reached, as IPv4 if it is (a socket for both families sees mapped addresses).
    pub(crate) fn remote(&self) -> SocketAddr {
        let addr = self.connection.remote_address();
        SocketAddr::new(addr.ip().to_canonical(), addr.port())
    }

    /// The lane of that number.
    pub(crate) fn lane(&self, number: u8) -> Option<&Lane> {
        self.lanes.get(usize::from(number))
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Queues a frame.
    pub(crate) fn send(&self, number: u8, frame: Bytes) -> Result<(), SendError> {
        if !self.is_up() {
            return Err(SendError::NoLink);
        }
        self.lane(number).ok_or(SendError::NoLink)?.push(frame)
    }

    /// As `send`, if the lane has room to spare.
    pub(crate) fn send_spare(&self, number: u8, frame: Bytes) -> Result<(), SendError> {
        if !self.is_up() {
            return Err(SendError::NoLink);
        }
        self.lane(number).ok_or(SendError::NoLink)?.push_spare(frame)
    }

    /// Queues a question.
    pub(crate) fn ask(&self, body: Bytes, timeout: Duration) -> Result<Answered, RequestError> {
        self.asks.ask(body, timeout)
    }

    /// Sends a gossip packet, by datagram if the path takes one, else over a stream of its own. Best effort.
    pub(crate) fn gossip(self: &Arc<Link>, packet: Bytes, tracker: &TaskTracker) {
        let fits = self.connection.max_datagram_size().is_some_and(|most| packet.len() <= most);
        if fits && self.connection.send_datagram(packet.clone()).is_ok() {
            return;
        }
        let connection = self.connection.clone();
        let send = async move {
            if let Ok(mut stream) = connection.open_uni().await {
                // As above: a closed stream refuses the write too.
                let _ = stream.set_priority(priority::CONTROL);
                // Gossip may be lost; the next round repeats it.
                let _ = stream.write_chunk(frame(Kind::Gossip, &packet)).await;
                let _ = stream.finish();
            }
        };
        tracker.spawn(tokio::time::timeout(GOSSIP_PATIENCE, send));
    }

    /// The handler shall hear nothing of this link any more.
    pub(crate) fn end(&self) {
        self.up.store(false, Relaxed);
        self.ended.cancel();
    }

    /// Whether the handler may hear of it.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Marks a lane as opened by the peer; false if it was already or does not exist.
    fn open_lane(&self, number: u8) -> bool {
        number < LANES && self.opened.fetch_or(1 << number, Relaxed) & (1 << number) == 0
    }

    fn malformed(&self, why: &dyn std::fmt::Display) {
        // Streams of a connection that broke end early too, and are nobody's fault.
        if self.connection.close_reason().is_none() {
            let why = self.fault.get_or_init(|| why.to_string());
            close(&self.connection, CloseCode::Malformed, why);
        }
    }

    /// Why the peer's bytes ended the link, if they did.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }
}

/// Starts the tasks of a link. `open` says that we are the lower ordinal and tell the peer that this is the link.
pub(crate) fn start<H: Handler>(
    context: &Context<H>,
    link: &Arc<Link>,
    control: Control,
    open: bool,
    waiting: mpsc::UnboundedReceiver<Ask>,
) {
    let spawn = Spawn { link: link.clone(), tracker: context.tracker.clone() };
    spawn.task(serve_control(context.shared.clone(), link.clone(), control, open));
    for number in 0..LANES {
        spawn.task(serve_lane(link.clone(), number));
    }
    spawn.task(accept_streams(context.clone(), link.clone()));
    spawn.task(accept_questions(context.clone(), link.clone()));
    spawn.task(serve_asks(context.tracker.clone(), link.clone(), waiting));
    spawn.task(read_datagrams(context.inputs.clone(), link.clone()));
    context.tracker.spawn(watch(context.inputs.clone(), link.clone()));
}

/// Connection, hello and control of a greeted peer, apart.
pub(crate) fn split(greeted: Greeted) -> (Connection, Identity, Control) {
    (greeted.connection, greeted.hello.identity, greeted.control)
}

struct Spawn {
    link: Arc<Link>,
    tracker: TaskTracker,
}

impl Spawn {
    /// Runs a task until it is done or the link ends. Dropping a task drops its streams, which resets them.
    fn task(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.link.ended.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = task => {}
                () = ended.cancelled() => {}
            }
        });
    }
}

async fn watch(inputs: mpsc::Sender<Input>, link: Arc<Link>) {
    let error = link.connection.closed().await;
    // The driver may be gone already.
    let _ = inputs.send(Input::Closed { link, error }).await;
}

async fn serve_control(shared: Arc<Shared>, link: Arc<Link>, mut control: Control, open: bool) {
    // If the stream is broken the connection is, and `watch` tells.
    if open && control.send.write_chunk(frame(Kind::Open, &[])).await.is_err() {
        return;
    }
    loop {
        let polled = control.decoder.poll_frame();
        shared.skipped(control.decoder.take_skipped());
        match polled {
            Ok(Some((kind, _))) => return link.malformed(&format!("{kind:?} on the control stream")),
            Ok(None) => {
                if fill(&mut control.recv, &mut control.decoder).await.is_err() {
                    return link.malformed(&"the control stream ended");
                }
            }
            Err(error) => return link.malformed(&error),
        }
    }
}

async fn serve_lane(link: Arc<Link>, number: u8) {
    let (Ok(stream), Some(lane)) = (link.connection.open_uni().await, link.lane(number)) else { return };
    // A stream just opened cannot be closed; if it is, the write says so.
    let _ = stream.set_priority(priority::LANE);
    if let Err(error) = lane::write(lane, number, stream).await {
        tracing::debug!(node = %link.peer.node, lane = number, %error, "lane ended");
    }
}

async fn accept_streams<H: Handler>(context: Context<H>, link: Arc<Link>) {
    let spawn = Spawn { link: link.clone(), tracker: context.tracker.clone() };
    while let Ok(stream) = link.connection.accept_uni().await {
        spawn.task(serve_stream(context.clone(), link.clone(), stream));
    }
}

/// A stream of the peer: its first frame says whether it is a lane or one packet of gossip.
async fn serve_stream<H: Handler>(context: Context<H>, link: Arc<Link>, mut stream: RecvStream) {
    let mut decoder = Decoder::new(MAX_PACKET);
    let first = loop {
        let polled = decoder.poll_frame();
        context.shared.skipped(decoder.take_skipped());
        match polled {
            Ok(Some(first)) => break first,
            Ok(None) => {
                if fill(&mut stream, &mut decoder).await.is_err() {
                    return;
                }
            }
            Err(error) => return link.malformed(&error),
        }
    };
    match first {
        (Kind::Gossip, packet) => offer(&context.inputs, packet),
        (Kind::Lane, body) => match body[..] {
            [number] if link.open_lane(number) => {
                decoder.allow(MAX_FRAME);
                read_lane(&context, &link, number, stream, decoder).await;
            }
            _ => link.malformed(&"a lane that does not exist or is open"),
        },
        (kind, _) => link.malformed(&format!("a stream of {kind:?}")),
    }
}

async fn read_lane<H: Handler>(context: &Context<H>, link: &Link, number: u8, stream: RecvStream, decoder: Decoder) {
    let Some(lane) = link.lane(number) else { return };
    let deliver = |frame| {
        let up = link.is_up();
        if up {
            context.handler.handle(Event::Frame { from: link.peer.node, lane: number, frame });
        }
        up
    };
    let skipped = |frames| context.shared.skipped(frames);
    match lane::read(lane, stream, decoder, || context.handler.ready(number), deliver, skipped).await {
        Ok(()) => {}
        Err(ReadError::Frame(error)) => link.malformed(&error),
        Err(ReadError::Ended) => link.malformed(&FrameError::Malformed("lane stream that ended")),
    }
}

async fn accept_questions<H: Handler>(context: Context<H>, link: Arc<Link>) {
    let spawn = Spawn { link: link.clone(), tracker: context.tracker.clone() };
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        spawn.task(serve_question(context.clone(), link.clone(), send, recv));
    }
}

async fn serve_question<H: Handler>(context: Context<H>, link: Arc<Link>, send: SendStream, mut recv: RecvStream) {
    let mut decoder = Decoder::new(request::MAX_FIRST);
    let answer = match request::receive(&mut recv, &mut decoder).await {
        Some((Kind::Pipe, body)) => {
            let shared = context.shared.clone();
            match pipe::accept(&link, shared, (send, recv), decoder, &body) {
                Some((head, pipe)) if link.is_up() => {
                    context.handler.handle(Event::Pipe { from: link.peer.node, head, pipe: Box::new(pipe) });
                }
                Some(_) => {}
                None => context.shared.refusals.count(RefusalReason::Question),
            }
            return;
        }
        Some((Kind::Request, body)) => {
            let (answer, answered) = oneshot::channel();
            if !link.is_up() {
                return;
            }
            let responder = Responder { answer };
            context.handler.handle(Event::Request { from: link.peer.node, body, responder });
            answered.await.ok()
        }
        Some((Kind::PushPull, body)) => {
            let (answer, answered) = oneshot::channel();
            let question = Input::Roster { body, answer: Some(answer) };
            if context.inputs.send(question).await.is_err() {
                return;
            }
            answered.await.ok()
        }
        Some(_) | None => {
            context.shared.refusals.count(RefusalReason::Question);
            None
        }
    };
    request::respond(send, answer).await;
}

async fn serve_asks(tracker: TaskTracker, link: Arc<Link>, mut waiting: mpsc::UnboundedReceiver<Ask>) {
    while let Some(ask) = waiting.recv().await {
        tracker.spawn(request::ask(link.connection.clone(), ask));
    }
}

async fn read_datagrams(inputs: mpsc::Sender<Input>, link: Arc<Link>) {
    while let Ok(packet) = link.connection.read_datagram().await {
        offer(&inputs, packet);
    }
}

/// Gossip that finds the driver busy is dropped, as the network might have done.
fn offer(inputs: &mpsc::Sender<Input>, packet: Bytes) {
    let _ = inputs.try_send(Input::Packet(packet));
}

/// Asks an earlier process of a node whose later one just greeted us whether it is alive, and tells the driver.
pub(crate) async fn ask_earlier(
    inputs: mpsc::Sender<Input>,
    earlier: Arc<Link>,
    roster: Bytes,
    greeted: Box<Greeted>,
    way: Way,
) {
    let answers = request::push_pull(earlier.connection.clone(), roster, TWIN_PATIENCE).await.is_some();
    // The driver may be gone already.
    let _ = inputs.send(Input::Asked { greeted, way, earlier, answers }).await;
}

/// Exchanges rosters with the peer and brings the answer to the driver.
pub(crate) async fn push_pull(inputs: mpsc::Sender<Input>, link: Arc<Link>, roster: Bytes, limit: Duration) {
    if let Some(body) = request::push_pull(link.connection.clone(), roster, limit).await {
        // The driver may be gone already.
        let _ = inputs.send(Input::Roster { body, answer: None }).await;
    }
}
