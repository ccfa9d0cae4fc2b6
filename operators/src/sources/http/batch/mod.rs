//! `POST /api/v1/events/batch`: many events in one request, of any length.
//!
//! The body is cut into events while it comes, and handed to the door in chunks: what is there goes on its way at once if
//! nothing of the request is under way, and grows meanwhile otherwise. Chunks become durable in their order; once one of
//! them does not, none after it does. What was stored when a request ends, however it ends, stays stored, and the answer
//! says how many events that are.
//!
//! Memory is bounded: a request holds the chunk that grows and [`MAX_UNDER_WAY`] that wait for the door, and takes from the
//! budget of all bodies for the first and from the door's queue for the others. A request that cannot go on, because the
//! door is busy or its caller over the rate, stops reading, so that its client is held back; after a while it ends.

mod split;
mod stream;
mod tally;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use cornjacket_core::door::{Bundle, BundleAnswer, Chain, Known, Refusal, Rejects, Taken};
use futures::{FutureExt, poll};
use tokio::time::Instant;

use super::answer::Problem;
use super::body::Share;
use super::content::{self, Batch, Key};
use super::rate::Rate;
use super::{Caller, Ingest};
use split::{Chunk, Splitter};
use stream::Stream;
use tally::{MAX_REJECTED, Tally};

/// Chunks of a request that wait for the door at one time.
const MAX_UNDER_WAY: usize = 4;
/// Events of a chunk.
const CHUNK_MESSAGES: usize = 4_096;
/// How long a request waits where it cannot go on.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it tries meanwhile.
const TRY_INTERVAL: Duration = Duration::from_millis(10);

/// Takes a batch.
pub(super) async fn take(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match read(&ingest, &parts, body).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn read(ingest: &Ingest, parts: &Parts, body: Body) -> Result<Response, Problem> {
    let (batch, coding) = content::of_batch(&parts.headers)?;
    let caller = parts.extensions.get::<Caller>();
    let key = Key::of(&parts.headers, caller)?;
    if let Batch::One(form) = batch {
        let taken = match ingest.take_one(parts, body, form, key.map(Key::identity)).await {
            Ok(_) => Taken { stored: 1, ..Taken::default() },
            Err(super::Failed::Rejected(rejection)) => Taken { rejections: vec![(0, rejection)], ..Taken::default() },
            Err(super::Failed::Problem(problem)) => return Err(problem),
        };
        let mut tally = Tally::default();
        tally.add(0, &taken);
        return Ok(tally.answer(Ok(())));
    }
    let rate = caller.and_then(|caller| caller.rate.as_deref());
    let mut intake = Intake::new(ingest, &batch, key, rate);
    intake.decoder.take(Stream::memory(coding)).await?;
    let mut stream = Stream::new(body, coding);
    let outcome = intake.run(&mut stream).await;
    if outcome.is_err() && !ingest.is_ending() {
        stream.discard().await;
    }
    Ok(intake.finish(outcome).await)
}

/// A batch on its way in.
struct Intake<'a> {
    ingest: &'a Ingest,
    key: Option<Key>,
    rate: Option<&'a Rate>,
    splitter: Splitter,
    /// Of the budget of bodies, for the splitter's bytes.
    share: Share,
    /// Of the budget of decoders.
    decoder: Share,
    chain: Chain,
    /// Chunks that wait for the door, each with its place in the batch.
    under_way: VecDeque<(u64, BundleAnswer)>,
    tally: Tally,
    last_byte: Instant,
    /// Whether the whole body was read.
    is_at_end: bool,
}

/// What a request waits for that has nothing at hand.
enum Woken {
    Read(Result<usize, String>),
    Answered(Result<Taken, Refusal>),
}

impl<'a> Intake<'a> {
    fn new(ingest: &'a Ingest, batch: &Batch, key: Option<Key>, rate: Option<&'a Rate>) -> Self {
        let burst = rate.map_or(u32::MAX, |rate| NonZeroU32::get(rate.burst()));
        let max_messages = CHUNK_MESSAGES.min(usize::try_from(burst).unwrap_or(usize::MAX));
        Self {
            ingest,
            key,
            rate,
            splitter: Splitter::new(batch, ingest.reader.max_bytes, max_messages),
            share: ingest.reader.budget.share(),
            decoder: ingest.decoders.share(),
            chain: Chain::default(),
            under_way: VecDeque::new(),
            tally: Tally::default(),
            last_byte: Instant::now(),
            is_at_end: false,
        }
    }

    /// Reads the body to its end and hands everything in.
    async fn run(&mut self, stream: &mut Stream) -> Result<(), Problem> {
        loop {
            let read = match stream.read(self.splitter.buffer()).now_or_never() {
                Some(read) => read,
                None => match self.wait(stream).await? {
                    Woken::Read(read) => read,
                    Woken::Answered(answer) => {
                        self.settle(answer)?;
                        continue;
                    }
                },
            };
            match read {
                Ok(0) => break,
                Ok(bytes) => {
                    self.decoder.arrive(bytes);
                    self.share.grow(bytes).await?;
                }
                Err(error) => {
                    // What is whole was sent whole.
                    self.hand_in().await?;
                    return Err(Problem::unreadable(&error));
                }
            }
            self.hand_in_full().await?;
            self.last_byte = Instant::now();
        }
        self.is_at_end = true;
        self.end().await
    }

    /// Waits for the client. What is whole goes on its way before, unless something is under way already.
    async fn wait(&mut self, stream: &mut Stream) -> Result<Woken, Problem> {
        if self.under_way.is_empty() && self.splitter.has_messages() {
            self.hand_in().await?;
            self.last_byte = Instant::now();
        }
        let until = self.last_byte + self.ingest.reader.timeout;
        let Self { splitter, share, decoder, under_way, ingest, .. } = self;
        let problem = tokio::select! {
            biased;
            () = ingest.told_to_end() => Problem::closing_down(),
            read = stream.read(splitter.buffer()) => return Ok(Woken::Read(read)),
            answer = first(under_way) => return Ok(Woken::Answered(answer)),
            () = share.outstayed() => Problem::busy(),
            () = decoder.outstayed() => Problem::busy(),
            () = tokio::time::sleep_until(until) => Problem::too_slow(),
        };
        self.hand_in().await?;
        Err(problem)
    }

    /// Hands in every full chunk of what has come.
    async fn hand_in_full(&mut self) -> Result<(), Problem> {
        loop {
            match self.splitter.scan() {
                Ok(true) => self.hand_in().await?,
                Ok(false) => break,
                Err(error) => {
                    self.hand_in().await?;
                    return Err(Problem::no_batch(error));
                }
            }
        }
        self.share.shrink_to(self.splitter.held());
        // Others have their turn, also where a small body decodes to a huge one.
        tokio::task::consume_budget().await;
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Problem> {
        let ended = self.splitter.end();
        if self.splitter.is_blank() {
            return Err(Problem::empty());
        }
        self.hand_in().await?;
        ended.map_err(Problem::no_batch)
    }

    /// Hands in what is whole.
    async fn hand_in(&mut self) -> Result<(), Problem> {
        while self.under_way.len() >= MAX_UNDER_WAY {
            let answer = first(&mut self.under_way).await;
            self.settle(answer)?;
        }
        let chunk = self.splitter.take();
        if !chunk.messages.is_empty() {
            wait_for_rate(self.rate, chunk.messages.len()).await?;
            self.submit(chunk).await?;
        }
        self.share.shrink_to(self.splitter.held());
        if self.ingest.is_ending() { Err(Problem::closing_down()) } else { Ok(()) }
    }

    async fn submit(&mut self, chunk: Chunk) -> Result<(), Problem> {
        let first = chunk.first;
        let bundle = Arc::new(self.bundle(chunk));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut answer = self.ingest.door.submit_bundle(Arc::clone(&bundle));
            match poll!(&mut answer) {
                std::task::Poll::Ready(Err(Refusal::Busy)) if Instant::now() < deadline => {
                    tokio::time::sleep(TRY_INTERVAL).await;
                }
                // The request ends, since nothing may follow what was refused: the answer says how many events, from the
                // first on, are stored.
                std::task::Poll::Ready(Err(refusal)) => return Err(refusal.into()),
                std::task::Poll::Ready(Ok(taken)) => {
                    self.under_way.push_back((first, Box::pin(std::future::ready(Ok(taken)))));
                    return Ok(());
                }
                std::task::Poll::Pending => {
                    self.under_way.push_back((first, answer));
                    return Ok(());
                }
            }
        }
    }

    fn bundle(&self, chunk: Chunk) -> Bundle {
        let known = |key: &Key| {
            let ids = (chunk.first..).take(chunk.messages.len()).map(|index| key.identity_at(index));
            ids.map(|id| Known { client_id: Some(id), ..Known::default() }).collect()
        };
        Bundle {
            source: Arc::clone(&self.ingest.source),
            origin: Arc::clone(&self.ingest.source),
            known: self.key.as_ref().map(known).unwrap_or_default(),
            bytes: chunk.bytes,
            messages: chunk.messages,
            envelope: None,
            position: None,
            receipts: Vec::new(),
            rejects: Rejects::Answer,
            chain: Some(self.chain.clone()),
        }
    }

    /// Counts what became of the first chunk under way.
    fn settle(&mut self, answer: Result<Taken, Refusal>) -> Result<(), Problem> {
        let Some((first, _)) = self.under_way.pop_front() else { return Ok(()) };
        self.tally.add(first, &answer?);
        if self.tally.has_too_many_rejected() { Err(Problem::too_many_rejected(MAX_REJECTED)) } else { Ok(()) }
    }

    /// Waits for everything under way, and answers.
    async fn finish(mut self, mut outcome: Result<(), Problem>) -> Response {
        while !self.under_way.is_empty() {
            let answer = first(&mut self.under_way).await;
            // The first problem is the one that counts.
            let settled = self.settle(answer);
            outcome = outcome.and(settled);
        }
        let is_at_end = self.is_at_end;
        self.tally.answer(outcome.map_err(|problem| if is_at_end { problem } else { problem.closing() }))
    }
}

/// Waits until a caller may hand in so many events, if that is soon.
async fn wait_for_rate(rate: Option<&Rate>, events: usize) -> Result<(), Problem> {
    let deadline = Instant::now() + PATIENCE;
    let Some(rate) = rate else { return Ok(()) };
    while let Err(wait) = rate.take(events) {
        if Instant::now() + wait > deadline {
            return Err(Problem::over_rate(wait));
        }
        tokio::time::sleep(wait).await;
    }
    Ok(())
}

/// The answer to the first chunk under way; never one if there is none.
async fn first(under_way: &mut VecDeque<(u64, BundleAnswer)>) -> Result<Taken, Refusal> {
    match under_way.front_mut() {
        Some((_, answer)) => answer.await,
        None => std::future::pending().await,
    }
}
