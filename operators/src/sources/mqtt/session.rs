//! A client's session: what it subscribed to, and the messages on their way to it.
//!
//! It outlives connections for as long as the client asked for. One connection at a time holds its **turn**; a newer one
//! of the same client asks the older to leave and waits until that has settled what it had received, so that a message
//! which is sent again is known.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mqtt_proto::v5::{self, VarByteInt};
use mqtt_proto::{Pid, QoS, QosPid};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::filter::Filter;
use super::message::Message;

/// Messages and bytes that wait for one client at most.
pub(super) const MAX_QUEUED: usize = 10_000;
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// From this on messages of QoS 0 are left out for it.
const FULL_FOR_QOS_0: usize = MAX_QUEUED / 2;
/// Messages sent to a client and not acknowledged by it.
const MAX_IN_FLIGHT: usize = 64;
/// The longest time that a session outlives its connection.
pub(super) const MAX_EXPIRY: u32 = 7 * 86_400;

/// Bytes of messages that wait, over all sessions.
pub(super) const MAX_WAITING_BYTES: usize = 256 << 20;

/// A session.
pub(super) struct Session {
    pub client: Arc<str>,
    state: Mutex<State>,
    /// There is something to send.
    pub wake: Notify,
    /// Held by the connection that speaks for the client.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Asks that connection to leave.
    kick: Mutex<Option<Arc<Notify>>>,
    /// Tells the will that waits whether the session has ended, so that it is due, or goes on without it.
    will: Mutex<Option<oneshot::Sender<bool>>>,
    waiting: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    filters: HashMap<String, Filter>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    in_flight: VecDeque<(u16, Sent)>,
    last_id: u16,
    /// Packet ids of what the client published with QoS 2, stored and not released by it yet.
    received: HashSet<u16>,
    is_known: bool,
    is_connected: bool,
    /// Whether there was no room for a message of QoS 1 or 2 while somebody was connected.
    is_overrun: bool,
    /// When it is over, once nobody is connected; `None` while somebody is.
    over_at: Option<Instant>,
    expiry: u32,
}

/// A message for this client.
#[derive(Clone)]
pub(super) struct Queued {
    pub message: Arc<Message>,
    pub qos: QoS,
    pub retain: bool,
    pub ids: Vec<VarByteInt>,
}

/// What a client is sent.
pub(super) enum Outgoing {
    /// A message, and the ids of the subscriptions that it is for.
    Message(v5::Publish, Vec<VarByteInt>),
    /// PUBREL.
    Release(Pid),
}

enum Sent {
    Message(Queued),
    /// QoS 2: the client has it; it is to be told that this is known.
    Released,
}

impl Session {
    pub fn new(client: &Arc<str>, waiting: &Arc<AtomicUsize>) -> Self {
        Self {
            client: Arc::clone(client),
            state: Mutex::default(),
            wake: Notify::new(),
            turn: Arc::default(),
            kick: Mutex::default(),
            will: Mutex::default(),
            waiting: Arc::clone(waiting),
        }
    }

    /// Asks the connection that there is to leave, and leaves word how the next one can be asked.
    pub fn claim(&self, kick: &Arc<Notify>) {
        if let Some(before) = self.kick.lock().replace(Arc::clone(kick)) {
            before.notify_one();
        }
    }

    /// For a will that is delayed: says whether the session ended before the delay did. Without an answer it has.
    pub fn delay_will(&self) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        *self.will.lock() = Some(sender);
        receiver
    }

    /// Begins a connection: says whether the client finds its session as it was, and gives what it had subscribed to if it
    /// does not.
    pub fn begin(&self, is_clean: bool, expiry: u32) -> (bool, Vec<Filter>) {
        let mut state = self.state.lock();
        let is_over = state.over_at.is_some_and(|at| at <= Instant::now());
        let is_present = state.is_known && !is_clean && !is_over;
        if let Some(will) = self.will.lock().take() {
            // It may have been sent already.
            let _ = will.send(!is_present);
        }
        let filters = if is_present { Vec::new() } else { self.clear(&mut state) };
        (state.is_known, state.is_connected, state.over_at, state.expiry) = (true, true, None, expiry);
        state.is_overrun = false;
        (is_present, filters)
    }

    /// Ends a connection; gives what is to be unsubscribed if the session ends with it.
    pub fn end(&self, expiry: Option<u32>) -> Vec<Filter> {
        let mut state = self.state.lock();
        state.is_connected = false;
        let expiry = expiry.unwrap_or(state.expiry).min(MAX_EXPIRY);
        if expiry == 0 {
            return self.clear(&mut state);
        }
        state.over_at = Some(Instant::now() + Duration::from_secs(u64::from(expiry)));
        state.queue.retain(|queued| queued.qos != QoS::Level0);
        let bytes = state.queue.iter().map(|queued| queued.message.bytes()).sum();
        self.waiting.fetch_sub(state.queued_bytes.saturating_sub(bytes), Ordering::Relaxed);
        state.queued_bytes = bytes;
        Vec::new()
    }

    /// Forgets everything if its time is over; gives what is to be unsubscribed.
    pub fn expire(&self) -> Option<Vec<Filter>> {
        let mut state = self.state.lock();
        let is_over = !state.is_connected && state.over_at.is_none_or(|at| at <= Instant::now());
        is_over.then(|| self.clear(&mut state))
    }

    fn clear(&self, state: &mut State) -> Vec<Filter> {
        self.waiting.fetch_sub(state.queued_bytes, Ordering::Relaxed);
        std::mem::take(state).filters.into_values().collect()
    }

    /// Notes a filter; `false` if there are too many.
    pub fn subscribe(&self, text: &str, filter: &Filter, most: usize) -> bool {
        let mut state = self.state.lock();
        if state.filters.len() >= most && !state.filters.contains_key(text) {
            return false;
        }
        state.filters.insert(text.to_owned(), filter.clone());
        true
    }

    /// How many subscriptions it has.
    pub fn filters(&self) -> usize {
        self.state.lock().filters.len()
    }

    pub fn unsubscribe(&self, text: &str) -> Option<Filter> {
        self.state.lock().filters.remove(text)
    }

    /// Whether the client was sent more than it reads.
    pub fn is_overrun(&self) -> bool {
        self.state.lock().is_overrun
    }

    /// Puts a message in the queue; `false` if there is no room for it. A connected client that is to have it all the same
    /// is sent away: it knows then that it misses something, and what waits for it stays.
    pub fn offer(&self, queued: Queued) -> bool {
        let bytes = queued.message.bytes();
        {
            let mut state = self.state.lock();
            let is_qos_0 = queued.qos == QoS::Level0;
            if is_qos_0 && !state.is_connected {
                return true;
            }
            let most = if is_qos_0 { FULL_FOR_QOS_0 } else { MAX_QUEUED };
            let is_full = state.queue.len() >= most
                || state.queued_bytes + bytes > MAX_QUEUED_BYTES
                || self.waiting.load(Ordering::Relaxed) + bytes > MAX_WAITING_BYTES;
            if is_full {
                if !is_qos_0 && state.is_connected {
                    state.is_overrun = true;
                    self.kick.lock().iter().for_each(|kick| kick.notify_one());
                }
                return false;
            }
            state.queued_bytes += bytes;
            self.waiting.fetch_add(bytes, Ordering::Relaxed);
            state.queue.push_back(queued);
        }
        self.wake.notify_one();
        true
    }

    /// What is to be sent again on a new connection, in its order.
    pub fn again(&self) -> Vec<Outgoing> {
        let state = self.state.lock();
        let packet = |(id, sent): &(u16, Sent)| {
            let pid = Pid::try_from(*id).ok()?;
            Some(match sent {
                Sent::Released => Outgoing::Release(pid),
                Sent::Message(queued) => Outgoing::Message(queued.packet(pid, true), queued.ids.clone()),
            })
        };
        state.in_flight.iter().filter_map(packet).collect()
    }

    /// The next message to send, if the client may be sent one: `window` is how many it takes unacknowledged.
    pub fn next(&self, window: u16) -> Option<(v5::Publish, Vec<VarByteInt>)> {
        let mut state = self.state.lock();
        let window = usize::from(window).min(MAX_IN_FLIGHT);
        loop {
            let is_qos_0 = state.queue.front()?.qos == QoS::Level0;
            if !is_qos_0 && state.in_flight.len() >= window {
                return None;
            }
            let queued = state.queue.pop_front()?;
            let bytes = queued.message.bytes();
            state.queued_bytes -= bytes;
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            if queued.message.is_over() {
                continue;
            }
            if is_qos_0 {
                return Some((queued.packet(Pid::default(), false), queued.ids));
            }
            let pid = state.free_id();
            let packet = (queued.packet(pid, false), queued.ids.clone());
            state.in_flight.push_back((pid.value(), Sent::Message(queued)));
            return Some(packet);
        }
    }

    /// PUBACK, PUBCOMP, or a PUBREC that says no: the message is done with.
    pub fn done(&self, pid: Pid) {
        self.state.lock().in_flight.retain(|(id, _)| *id != pid.value());
    }

    /// PUBREC: the client has the message. Says whether there is such a one.
    pub fn received(&self, pid: Pid) -> bool {
        let mut state = self.state.lock();
        let found = state.in_flight.iter_mut().find(|(id, _)| *id == pid.value());
        found.is_some_and(|(_, sent)| {
            *sent = Sent::Released;
            true
        })
    }

    /// Whether what a client publishes with this id was stored, and not released yet.
    pub fn has(&self, pid: Pid) -> bool {
        self.state.lock().received.contains(&pid.value())
    }

    pub fn hold(&self, pid: Pid) {
        self.state.lock().received.insert(pid.value());
    }

    /// PUBREL: the client will not send it again.
    pub fn release(&self, pid: Pid) -> bool {
        self.state.lock().received.remove(&pid.value())
    }

    /// How many ids of QoS 2 are held.
    pub fn held(&self) -> usize {
        self.state.lock().received.len()
    }
}

impl State {
    fn free_id(&mut self) -> Pid {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = self.last_id;
            if let Ok(pid) = Pid::try_from(id)
                && !self.in_flight.iter().any(|(used, _)| *used == id)
            {
                return pid;
            }
        }
    }
}

impl Queued {
    fn packet(&self, pid: Pid, dup: bool) -> v5::Publish {
        let (qos_pid, dup) = match self.qos {
            QoS::Level0 => (QosPid::Level0, false),
            QoS::Level1 => (QosPid::Level1(pid), dup),
            QoS::Level2 => (QosPid::Level2(pid), dup),
        };
        self.message.packet(qos_pid, dup, self.retain)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let bytes = self.state.lock().queued_bytes;
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}
