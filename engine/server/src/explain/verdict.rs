//! Who holds time back at a node.
//!
//! A node's watermark is the least clock of its event types. A partition that counts as silent holds nothing back: its
//! clock is raised to the greatest of its type as soon as that lets a window close. So the one to name is the partition
//! with the least clock among those that do not count as silent.

use std::fmt::Write;

use cornjacket_core::time::Micros;

use super::time::{clock_time, span};

/// A node as the running pipeline tells of it.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub kind: String,
    pub event_types: Vec<String>,
    pub watermark: Option<Micros>,
    pub waits_for: Option<Micros>,
    pub closes_by: Option<Micros>,
}

/// The clock of an event type in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    pub event_type: String,
    pub partition: i64,
    pub time: Micros,
    pub last_row_at: Option<Micros>,
    pub silent_at: Micros,
}

impl Clock {
    pub fn is_silent(&self, now: Micros) -> bool {
        self.silent_at <= now
    }

    /// Its event type and partition.
    pub fn name(&self) -> String {
        format!("{} partition {}", self.event_type, self.partition)
    }

    /// When its last row came.
    pub fn last_row(&self, now: Micros) -> String {
        match self.last_row_at {
            Some(at) => format!("last row {} ago", span(now - at)),
            None => "no row since the process started".into(),
        }
    }

    /// Whether it counts as silent, or when it will.
    pub fn silence(&self, now: Micros) -> String {
        if self.is_silent(now) {
            "counts as silent".into()
        } else {
            format!("counts as silent in {}", span(self.silent_at - now))
        }
    }
}

/// What an open window waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// A partition's clock, and the furthest one of its type if that is further.
    Held(&'a Clock, Option<&'a Clock>),
    /// Nothing but the wall clock: every partition that has time to go is silent.
    Silent,
    /// Nothing any more: it closes with the next epoch.
    Due,
}

/// Who holds back a node that waits for a time.
pub fn verdict<'a>(node: &Node, waits_for: Micros, clocks: &'a [Clock], now: Micros) -> Verdict<'a> {
    let of_node = || clocks.iter().filter(|clock| node.event_types.contains(&clock.event_type));
    let behind = || of_node().filter(|clock| clock.time < waits_for);
    let active = behind().filter(|clock| !clock.is_silent(now));
    if let Some(holder) = active.min_by_key(|clock| (clock.time, clock.partition)) {
        let of_type = clocks.iter().filter(|clock| clock.event_type == holder.event_type);
        let furthest = of_type.max_by_key(|clock| clock.time).filter(|furthest| furthest.time > holder.time);
        return Verdict::Held(holder, furthest);
    }
    // Silent partitions follow the greatest clock of their type.
    let arrived = |clock: &Clock| {
        let greatest = of_node().filter(|other| other.event_type == clock.event_type).map(|other| other.time).max();
        greatest.is_some_and(|greatest| greatest >= waits_for)
    };
    if behind().all(arrived) { Verdict::Due } else { Verdict::Silent }
}

/// The verdict in words; `None` if no window is open.
pub fn says(node: &Node, clocks: &[Clock], now: Micros) -> Option<String> {
    let waits_for = node.waits_for?;
    let mut text = format!("{} waits until {} to close its oldest window", node.name, clock_time(waits_for, now));
    if let Some(watermark) = node.watermark {
        let _ = write!(text, "; its watermark is {}", clock_time(watermark, now));
    }
    match verdict(node, waits_for, clocks, now) {
        Verdict::Held(holder, furthest) => {
            let _ = write!(text, ", held by {} ({}; {})", holder.name(), holder.last_row(now), holder.silence(now));
            text += ". It is ";
            if let Some(furthest) = furthest {
                let ahead = span(furthest.time - holder.time);
                let _ = write!(text, "{ahead} behind partition {} and ", furthest.partition);
            }
            let _ = write!(text, "{} behind the wall clock.", span(now - holder.time));
        }
        Verdict::Silent => {
            let _ = write!(
                text,
                ". Every partition of {} that it needs is silent, so time goes on with the wall clock.",
                node.event_types.join(" and ")
            );
        }
        Verdict::Due => text += ". All its clocks are past that: it closes now.",
    }
    if let Some(at) = node.closes_by.filter(|at| *at > now) {
        let _ = write!(text, " If no row comes, it closes at {}, in {}.", clock_time(at, now), span(at - now));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use cornjacket_core::time::{SECOND, parse_rfc3339};

    use super::*;

    fn at(text: &str) -> Micros {
        parse_rfc3339(&format!("2026-01-01T{text}Z")).expect("a time")
    }

    fn clock(event_type: &str, partition: i64, time: &str, last: &str) -> Clock {
        let last_row_at = (!last.is_empty()).then(|| at(last));
        let silent_at = last_row_at.unwrap_or(at("10:05:00")) + 60 * SECOND;
        Clock { event_type: event_type.into(), partition, time: at(time), last_row_at, silent_at }
    }

    fn node(types: &[&str], closes_by: &str) -> Node {
        Node {
            name: "device_minute/2".into(),
            kind: "tumble".into(),
            event_types: types.iter().map(ToString::to_string).collect(),
            watermark: Some(at("10:04:12")),
            waits_for: Some(at("10:05:00")),
            closes_by: (!closes_by.is_empty()).then(|| at(closes_by)),
        }
    }

    #[test]
    fn the_least_clock_that_is_not_silent_is_named() {
        let now = at("10:05:20");
        let clocks = [
            clock("sensor.reading", 0, "10:04:52", "10:05:19"),
            clock("sensor.reading", 3, "10:04:12", "10:04:32"),
            clock("sensor.reading", 1, "09:00:00", "09:00:05"),
            clock("user.login", 2, "08:00:00", "10:05:19"),
        ];
        assert_eq!(
            says(&node(&["sensor.reading"], "10:05:32"), &clocks, now).expect("it waits"),
            "device_minute/2 waits until 10:05:00 to close its oldest window; its watermark is 10:04:12, held by \
             sensor.reading partition 3 (last row 48 s ago; counts as silent in 12 s). It is 40 s behind partition 0 and \
             1 min 8 s behind the wall clock. If no row comes, it closes at 10:05:32, in 12 s."
        );
        let both = node(&["sensor.reading", "user.login"], "");
        assert_eq!(verdict(&both, at("10:05:00"), &clocks, now), Verdict::Held(&clocks[3], None));
    }

    #[test]
    fn silence_and_arrival_are_told_apart() {
        let now = at("10:10:00");
        let node = node(&["sensor.reading"], "10:10:30");
        let silent =
            [clock("sensor.reading", 0, "10:04:12", "10:04:17"), clock("sensor.reading", 1, "10:04:20", "10:04:25")];
        assert_eq!(verdict(&node, at("10:05:00"), &silent, now), Verdict::Silent);
        let text = says(&node, &silent, now).expect("it waits");
        assert!(text.ends_with("with the wall clock. If no row comes, it closes at 10:10:30, in 30 s."), "{text}");
        let arrived = [silent[0].clone(), clock("sensor.reading", 1, "10:09:50", "10:09:55")];
        assert_eq!(verdict(&node, at("10:05:00"), &arrived, now), Verdict::Due);
        let started = [clock("sensor.reading", 0, "10:04:12", "")];
        let text = says(&node, &started, at("10:05:10")).expect("it waits");
        assert!(text.contains("(no row since the process started; counts as silent in 50 s)"), "{text}");
        assert_eq!(says(&Node { waits_for: None, ..node }, &silent, now), None);
    }
}
