//! The center's edge as the simulation plays it: commits, lets effects out, dies anywhere between, comes back.

use crate::{disk::Disk, world::Happening};
use daitn_control::{
    Entropy, Timing,
    core::{ConnectionId, Core, CoreConfig, Effect, Event, RequestId, Timer, Transition},
};
use daitn_messages::{
    ids::{NodeId, OrganisationId},
    operation::{Answer, Operation, Principal},
    rejection::Rejection,
    session::Peer,
    signed::NodeKey,
    units::UnixMillis,
};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Center {
    pub(crate) config: CoreConfig,
    pub(crate) core: Option<Core>,
    pub(crate) disk: Disk,
    pub(crate) entropy: Entropy,
    pub(crate) timers: BTreeMap<Timer, u64>,
    /// Connections that the center believes in.
    pub(crate) connections: BTreeMap<NodeId, ConnectionId>,
    pub(crate) next_request: u64,
    pub(crate) n_events: u64,
    pub(crate) largest: BTreeMap<&'static str, usize>,
}

/// Where the center dies while it takes an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    BeforeCommit,
    AfterCommit,
    /// After so many effects.
    AfterEffects(usize),
}

impl Center {
    pub(crate) fn new(seed: u64) -> Self {
        let key = NodeKey::from_bytes(&[42; 32]);
        let operator: OrganisationId = "operator".parse().unwrap();
        let peer = Peer {
            node: key.id(),
            addresses: Vec::new(),
            relay: None,
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            config: CoreConfig {
                domain: "simulated".to_owned(),
                operator,
                key,
                peer,
                relay: None,
                gateways: Vec::new(),
                timing: Timing::default(),
                plans_apart: false,
            },
            core: None,
            disk: Disk::default(),
            entropy: Entropy::new(bytes),
            timers: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_request: 0,
            n_events: 0,
            largest: BTreeMap::new(),
        }
    }

    pub(crate) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    /// Starts, or starts again from what was committed.
    pub(crate) fn start(&mut self, now: u64) -> Vec<Effect> {
        assert!(self.core.is_none());
        self.timers.clear();
        self.connections.clear();
        let core = Core::restore(self.config.clone(), &self.disk.records(), UnixMillis(now));
        let mut core = core.expect("what was committed makes a state");
        let transition = core.start(UnixMillis(now), &mut self.entropy);
        self.core = Some(core);
        self.commit(&transition);
        transition.effects
    }

    fn commit(&mut self, transition: &Transition) {
        let wrong = self.disk.commit(&transition.batch);
        assert!(wrong.is_empty(), "failure 9: {wrong:?}");
    }

    /// Takes an event and gives the effects that get out. After a death the core is gone.
    pub(crate) fn take(&mut self, event: Event, now: u64, death: Option<Death>) -> Vec<Effect> {
        let Some(core) = self.core.as_mut() else {
            return Vec::new();
        };
        self.n_events += 1;
        let transition = core.handle(event, UnixMillis(now), &mut self.entropy);
        for (name, size) in core.sizes() {
            let largest = self.largest.entry(name).or_default();
            *largest = (*largest).max(size);
        }
        if death == Some(Death::BeforeCommit) {
            self.core = None;
            return Vec::new();
        }
        self.commit(&transition);
        let mut effects = transition.effects;
        match death {
            Some(Death::AfterCommit) => {
                self.core = None;
                effects.clear();
            }
            Some(Death::AfterEffects(n)) => {
                self.core = None;
                effects.truncate(n);
            }
            _ => {}
        }
        effects
    }

    /// Asks as a client that waits for the answer and meets no fault: for what the simulation wants to know.
    pub(crate) fn ask(
        &mut self,
        principal: &Principal,
        operation: Operation,
        now: u64,
    ) -> Result<Answer, Rejection> {
        let request = self.request();
        let event = Event::Operation {
            request,
            principal: principal.clone(),
            operation: Box::new(operation),
        };
        let core = self.core.as_mut().expect("the center is up");
        let transition = core.handle(event, UnixMillis(now), &mut self.entropy);
        self.commit(&transition);
        let mut answer = None;
        for effect in transition.effects {
            match effect {
                Effect::Reply { result, .. } => answer = Some(result),
                Effect::Arm { timer, at } => {
                    self.timers.insert(timer, at.0);
                }
                _ => {}
            }
        }
        answer.expect("every operation that reads memory is answered at once")
    }

    pub(crate) fn bootstrap(&mut self, now: u64) -> Principal {
        let request = self.request();
        let operator = self.config.operator.clone();
        let core = self.core.as_mut().unwrap();
        let transition = core.bootstrap(request, operator, UnixMillis(now), &mut self.entropy);
        self.commit(&transition);
        let snapshot = self.core.as_ref().unwrap().snapshot(UnixMillis(now));
        assert_eq!(snapshot.keys.len(), 1);
        snapshot.keys[0].principal.clone()
    }

    /// What falls due when: timers become happenings; a later arming overrules.
    pub(crate) fn arm(&mut self, timer: Timer, at: UnixMillis) -> Happening {
        self.timers.insert(timer.clone(), at.0);
        Happening::Timer(timer, at.0)
    }
}
