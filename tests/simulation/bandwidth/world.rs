//! Flows and links in virtual time.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use quintet::{bandwidth::FeedbackReport, model::MediaTime};

use super::{
    flow::{Arrival, Flow, FlowSetup},
    network::{Link, LinkSetup, seconds, time},
    tcp::{LOSS_NOTICE, ROUND_TRIP, SEGMENT, Tcp},
};

/// Some flows over some links.
pub(crate) struct World {
    pub(crate) links: Vec<Link>,
    pub(crate) flows: Vec<Flow>,
    pub(crate) tcp: Option<Tcp>,
    pub(crate) coupling: Option<Coupling>,
    events: BinaryHeap<Reverse<(MediaTime, u64)>>,
    pending: std::collections::HashMap<u64, Event>,
    next_event: u64,
    /// When each flow is woken next for its pacer.
    wakes: Vec<Option<MediaTime>>,
}

/// What joins the estimators of one machine: called after each report of a flow.
pub(crate) type Coupling = Box<dyn FnMut(&mut [Flow], usize, MediaTime)>;

enum Event {
    Frame(usize),
    Audio(usize),
    Wake(usize),
    Arrive(usize, Arrival),
    Feedback(usize),
    Report(usize, FeedbackReport),
    TcpStart,
    TcpAcknowledged,
    TcpLost,
}

const FRAME: Duration = Duration::from_micros(33_333);
const AUDIO: Duration = Duration::from_millis(20);

impl World {
    pub(crate) fn new(links: Vec<LinkSetup>, flows: Vec<FlowSetup>, seed: u64) -> Self {
        let link = |(setup, index)| Link::new(setup, seed * 31 + index);
        let flow = |(setup, index)| Flow::new(setup, seed * 31 + index);
        let mut world = Self {
            wakes: vec![None; flows.len()],
            links: links.into_iter().zip(1..).map(link).collect(),
            flows: flows.into_iter().zip(100..).map(flow).collect(),
            tcp: None,
            coupling: None,
            events: BinaryHeap::new(),
            pending: std::collections::HashMap::new(),
            next_event: 0,
        };
        for index in 0..world.flows.len() {
            let start = time(world.flows[index].setup.active.start);
            world.at(start, Event::Frame(index));
            world.at(start, Event::Audio(index));
            world.at(start + world.flows[index].setup.feedback_interval, Event::Feedback(index));
        }
        world
    }

    /// Adds a download from a second on.
    pub(crate) fn add_tcp(&mut self, tcp: Tcp, from: f64) {
        self.tcp = Some(tcp);
        self.at(time(from), Event::TcpStart);
    }

    pub(crate) fn run(&mut self, until: f64) {
        let until = time(until);
        while let Some(Reverse((at, id))) = self.events.pop() {
            if at > until {
                self.events.push(Reverse((at, id)));
                return;
            }
            let event = self.pending.remove(&id).expect("each event has its entry");
            self.handle(event, at);
        }
    }

    fn at(&mut self, at: MediaTime, event: Event) {
        self.next_event += 1;
        self.pending.insert(self.next_event, event);
        self.events.push(Reverse((at, self.next_event)));
    }

    fn handle(&mut self, event: Event, now: MediaTime) {
        match event {
            Event::Frame(index) => {
                self.flows[index].encode_frame(now);
                self.again(index, now + FRAME, Event::Frame(index));
                self.drive(index, now);
            }
            Event::Audio(index) => {
                self.flows[index].encode_audio(now);
                self.again(index, now + AUDIO, Event::Audio(index));
                self.drive(index, now);
            }
            Event::Wake(index) => {
                self.wakes[index] = None;
                self.drive(index, now);
            }
            Event::Arrive(index, arrival) => self.flows[index].receive(&arrival),
            Event::Feedback(index) => self.feed_back(index, now),
            Event::Report(index, mut report) => {
                report.at = now;
                self.flows[index].take_report(&report);
                if let Some(coupling) = &mut self.coupling {
                    coupling(&mut self.flows, index, now);
                }
                self.drive(index, now);
            }
            Event::TcpStart => self.drive_tcp(now),
            Event::TcpAcknowledged => {
                self.tcp.as_mut().expect("there is a download").on_acknowledgement(now);
                self.drive_tcp(now);
            }
            Event::TcpLost => {
                self.tcp.as_mut().expect("there is a download").on_loss(now);
                self.drive_tcp(now);
            }
        }
    }

    /// Schedules the next frame or block of a flow that goes on.
    fn again(&mut self, index: usize, at: MediaTime, event: Event) {
        if seconds(at) < self.flows[index].setup.active.end {
            self.at(at, event);
        }
    }

    fn drive(&mut self, index: usize, now: MediaTime) {
        let flow = &mut self.flows[index];
        let link = &mut self.links[flow.setup.links.0];
        let arrivals = flow.drive(link, now);
        let timeout = flow.timeout();
        for arrival in arrivals {
            self.at(arrival.at, Event::Arrive(index, arrival));
        }
        let Some(wake) = timeout.map(|at| at.max(now + Duration::from_micros(1))) else { return };
        if self.wakes[index].is_none_or(|at| wake < at) {
            self.wakes[index] = Some(wake);
            self.at(wake, Event::Wake(index));
        }
    }

    fn feed_back(&mut self, index: usize, now: MediaTime) {
        let flow = &mut self.flows[index];
        let FlowSetup { feedback_interval, return_delay, links, ref active, .. } = flow.setup;
        if seconds(now) > active.end + 1.0 {
            return;
        }
        let report = flow.make_report(now);
        self.at(now + feedback_interval, Event::Feedback(index));
        let arrives = match links.1 {
            _ if report.is_none() => None,
            Some(link) => self.links[link].send(now, 100),
            None => Some(now + return_delay),
        };
        if let Some((at, report)) = arrives.zip(report) {
            self.at(at, Event::Report(index, report));
        }
    }

    fn drive_tcp(&mut self, now: MediaTime) {
        let Some(mut tcp) = self.tcp.take() else { return };
        while tcp.take_segment(now) {
            match self.links[0].send(now, SEGMENT) {
                Some(at) => {
                    tcp.received.push((seconds(at), SEGMENT, true));
                    self.at(at + ROUND_TRIP / 2, Event::TcpAcknowledged);
                }
                None => self.at(now + LOSS_NOTICE, Event::TcpLost),
            }
        }
        self.tcp = Some(tcp);
    }
}
