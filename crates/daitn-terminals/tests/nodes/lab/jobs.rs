//! Plans and the orders that follow from them, as a control center would make them.

use super::{Lab, PERMIT_RESEARCH, Running, data::*, now};
use daitn_messages::{
    ids::*, learning::*, order::*, plan::*, policy::UseContext, receipt::TrainingDone, request::*,
    session::Peer, units::UnixMillis,
};
use std::path::PathBuf;

/// A site of a plan: where it is and what it holds.
#[derive(Clone)]
pub(crate) struct SiteAt {
    pub(crate) dataset: EntityId,
    pub(crate) peer: Peer,
    pub(crate) records: u64,
}

pub(crate) struct Job<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) id: JobId,
    pub(crate) sites: Vec<SiteAt>,
    pub(crate) chains: Vec<Vec<u32>>,
    pub(crate) shuffle: bool,
    pub(crate) strategy: Strategy,
    pub(crate) rounds: u32,
    pub(crate) quorum: u32,
    pub(crate) deadline_ms: u64,
    pub(crate) conductor: (EntityId, Peer),
    pub(crate) spares: Vec<(EntityId, Peer)>,
    pub(crate) readers: Vec<NodeId>,
    pub(crate) epoch: u64,
    pub(crate) local: LocalTraining,
    pub(crate) norm_clip: Option<f32>,
}

impl<'a> Job<'a> {
    pub(crate) fn rounds(lab: &'a Lab, sites: Vec<SiteAt>, conductor: &Running, rounds: u32) -> Self {
        let n = u32::try_from(sites.len()).unwrap();
        Self {
            lab,
            id: lab.job(),
            chains: (0..n).map(|site| vec![site]).collect(),
            quorum: n,
            sites,
            shuffle: false,
            strategy: Strategy::FedAvg,
            rounds,
            deadline_ms: 20_000,
            conductor: (conductor.entities[0].clone(), conductor.peer()),
            spares: Vec::new(),
            readers: Vec::new(),
            epoch: 1,
            local: local(),
            norm_clip: None,
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        let kind = match &self.chains[..] {
            [_] => PlanKind::Itinerary,
            chains if chains.iter().any(|chain| chain.len() > 1) => PlanKind::Hybrid,
            _ => PlanKind::Rounds,
        };
        let placement = |(entity, peer): &(EntityId, Peer)| Placement {
            entity: entity.clone(),
            node: peer.node,
        };
        let spec = spec();
        Plan {
            id: PlanId::new(1, [0; 10]),
            decision: DecisionId::new(1, [0; 10]),
            request: TrainingRequest {
                model: "digits".parse().unwrap(),
                organisation: "university".parse().unwrap(),
                jurisdiction: "DE".to_owned(),
                purpose: "research".to_owned(),
                architecture: spec.architecture,
                features: spec.features,
                target: spec.target,
                task: spec.task,
                scale: spec.scale,
                offset: spec.offset,
                data: DataFilter::default(),
                training: TrainingParameters {
                    strategy: Some(self.strategy),
                    kind: Some(kind),
                    rounds: self.rounds,
                    local: self.local,
                    quorum: Some(self.quorum),
                    round_deadline_ms: Some(self.deadline_ms),
                    norm_clip: self.norm_clip,
                },
                protections: Vec::new(),
                sla: Sla::default(),
                verification: Verification {
                    metric: Metric::Accuracy,
                    target: 0.9,
                    required: 1,
                    units: None,
                },
                deployment: None,
            },
            made_at: UnixMillis(0),
            valid_until: now().plus(60_000),
            state_version: 1,
            kind,
            strategy: self.strategy,
            rounds: self.rounds,
            sites: self
                .sites
                .iter()
                .map(|site| Site {
                    dataset: site.dataset.clone(),
                    descriptor_version: 1,
                    node: site.peer.node,
                    organisation: site.dataset.organisation.clone(),
                    compute: None,
                    records: site.records,
                    policies: Vec::new(),
                    train_ms: 1,
                    transfer_ms: 1,
                })
                .collect(),
            chains: self.chains.clone(),
            shuffle: self.shuffle,
            quorum: self.quorum,
            cohort: 1,
            quorum_why: String::new(),
            round_deadline_ms: self.deadline_ms,
            aggregator: placement(&self.conductor),
            aggregator_spares: self.spares.iter().map(placement).collect(),
            verifiers: Vec::new(),
            hosts: Vec::new(),
            excluded: Vec::new(),
            prediction: Prediction::default(),
            alternatives: Vec::new(),
            why: String::new(),
        }
    }

    pub(crate) fn context(&self) -> UseContext {
        let (algorithm, cohort) = match self.plan().kind {
            PlanKind::Rounds => (self.strategy.as_str(), u32::try_from(self.sites.len()).unwrap()),
            // A model that travels holds one site's work when it leaves it.
            PlanKind::Itinerary | PlanKind::Hybrid => ("itinerary", 1),
        };
        UseContext {
            purpose: "research".to_owned(),
            algorithm: algorithm.to_owned(),
            protections: Vec::new(),
            cohort,
            jurisdiction: "DE".to_owned(),
            recipients: vec!["aggregators".parse().unwrap()],
        }
    }

    /// The order to a site.
    pub(crate) fn train(&self, position: u32) -> WorkOrder {
        let site = &self.sites[position as usize];
        let chain = self.chains.iter().find(|chain| chain.contains(&position));
        let mates = chain.into_iter().flatten().filter(|other| **other != position);
        let mates = mates.map(|other| self.sites[*other as usize].peer.clone());
        let train = TrainOrder {
            requester: "university".parse().unwrap(),
            dataset: site.dataset.clone(),
            descriptor_version: 1,
            context: self.context(),
            plan: self.plan().hash(),
            spec: spec(),
            local: self.local,
            strategy: self.strategy,
            cycles: self.rounds,
            position,
            conductor: self.conductor.1.clone(),
            peers: mates.chain([self.conductor.1.clone()]).collect(),
            compute: None,
            compute_entity: None,
        };
        let instruction = Instruction::Train(Box::new(train));
        WorkOrder {
            epoch: self.epoch,
            ..self
                .lab
                .work_order(site.peer.node, &site.dataset, Some(&self.id), instruction)
        }
    }

    /// The order to the conductor.
    pub(crate) fn conduct(&self, accepted: &[u32], resume: Option<Resume>) -> WorkOrder {
        let conduct = ConductOrder {
            plan: self.plan(),
            accepted: accepted.to_vec(),
            peers: self.sites.iter().map(|site| site.peer.clone()).collect(),
            resume,
            spares: self.spares.iter().map(|(_, peer)| peer.clone()).collect(),
            readers: self.readers.clone(),
        };
        let instruction = Instruction::Conduct(Box::new(conduct));
        let (entity, peer) = &self.conductor;
        WorkOrder {
            epoch: self.epoch,
            ..self
                .lab
                .work_order(peer.node, entity, Some(&self.id), instruction)
        }
    }

    /// Orders the sites and then the conductor; the conductor's order.
    pub(crate) async fn begin(&self, positions: &[u32]) -> WorkOrder {
        for position in positions {
            let order = self.train(*position);
            self.lab.order(&order).await;
            assert_eq!(self.lab.accepted(&order.id).await, ["research-only"]);
        }
        let order = self.conduct(
            &(0..u32::try_from(self.sites.len()).unwrap()).collect::<Vec<_>>(),
            None,
        );
        self.lab.order(&order).await;
        order
    }

    pub(crate) async fn run(&self) -> (OrderId, TrainingDone) {
        let positions: Vec<u32> = (0..u32::try_from(self.sites.len()).unwrap()).collect();
        let order = self.begin(&positions).await;
        let done = self.lab.training_done(&order.id).await;
        (order.id, done)
    }
}

/// Datasets of `n` sites on nodes of their own, and an aggregator.
pub(crate) async fn sites(lab: &Lab, n: usize) -> (Vec<Running>, Vec<SiteAt>, Vec<PathBuf>) {
    let (mut nodes, mut sites, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        // 1,797 rows: the last 297 are for verification.
        let path = digits(lab.directory.path(), &format!("site-{i}.csv"), i, n, 1_500 / n);
        let seed = u8::try_from(i + 1).unwrap();
        let node = lab
            .node(
                seed,
                &format!("site-{i}"),
                vec![dataset("digits", &path, PERMIT_RESEARCH)],
            )
            .await;
        sites.push(SiteAt {
            dataset: node.entities[0].clone(),
            peer: node.peer(),
            records: (1_500 / n) as u64,
        });
        nodes.push(node);
        paths.push(path);
    }
    (nodes, sites, paths)
}
