//! Where a job begins, or goes on: from nothing, from the conductor's own journal, or from a state that somebody kept.

use super::{
    ask::Field,
    core::{CLOSING_MS, Core},
    drive::{Conductor, Prepared, logged, no_reporter},
    events::Course,
    journal::Journal,
    learner::Learner,
    publish::{hold, publish, restore},
    report::{self, AHEAD_MAX, Unreported},
};
use crate::{
    durable::blocking,
    holds::Readers,
    orders::Decided,
    shared::{Shared, only},
};
use daitn_fabric::Heard;
use daitn_messages::{
    order::{ConductOrder, Instruction, Resume},
    receipt::CycleReport,
    rejection::Rejection,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait for the core: one for each site of a large plan and some room.
const EVENTS_MAX: usize = 1024;

impl Conductor {
    pub(super) async fn prepare(
        shared: &Arc<Shared>,
        known: &Arc<Decided>,
        directory: PathBuf,
        stop: CancellationToken,
    ) -> Result<Prepared, Rejection> {
        let Instruction::Conduct(conduct) = &known.order.instruction else {
            return Err(crate::shared::wrong_terminal(&known.order));
        };
        let job = known.order.job.clone();
        let job = job.ok_or_else(|| Rejection::malformed("job", "an order to conduct names its job"))?;
        shared.learn(&conduct.peers, Heard::Now);
        shared.learn(&conduct.spares, Heard::Now);
        let path = Journal::path(&directory, &job);
        let earlier = {
            let path = path.clone();
            blocking(move || Journal::read(&path))
                .await
                .map_err(|error| logged(&error))?
        };
        let learner = {
            let (engine, conduct) = (shared.engine.clone(), conduct.clone());
            let n_sites = conduct.accepted.len();
            blocking(move || Learner::new(&*engine, &conduct.plan, n_sites)).await?
        };
        let within = Duration::from_millis(conduct.plan.round_deadline_ms.saturating_add(CLOSING_MS));
        let field = Arc::new(Field {
            shared: shared.clone(),
            known: known.clone(),
            conduct: Arc::new((**conduct).clone()),
            updates: format!("updates/{job}").into(),
            job,
            learner,
            receipts: Mutex::default(),
            bytes_moved: AtomicU64::new(0),
            within,
        });
        let readers = readers_of(shared, conduct);
        Self::from_where_it_stood(field, earlier, path, readers, stop).await
    }

    async fn from_where_it_stood(
        field: Arc<Field>,
        earlier: Option<Journal>,
        path: PathBuf,
        readers: Readers,
        stop: CancellationToken,
    ) -> Result<Prepared, Rejection> {
        let resume = field.conduct.resume.as_ref();
        let own = earlier.filter(|journal| resume.is_none_or(|resume| goes_on_from(journal, resume)));
        let (mut cycles_done, mut history, mut unreported) = (0, Vec::new(), Vec::new());
        let (mut counted, mut counts_all) = (BTreeMap::new(), resume.is_none());
        if let Some(journal) = own {
            if let Some(done) = &journal.done {
                hold(
                    &field,
                    journal.cycles_done,
                    &[journal.global, journal.state],
                    &readers,
                )?;
                return Ok(Prepared::Done(done.clone()));
            }
            restore(&field, journal.state, &[]).await?;
            (cycles_done, history, unreported) = (journal.cycles_done, journal.history, journal.unreported);
            (counted, counts_all) = (journal.counted, journal.counts_all);
        } else if let Some(resume) = resume {
            restore(&field, resume.state, &resume.holders).await?;
            cycles_done = resume.cycles_done;
        }
        let (begin, state) = publish(&field, cycles_done, None, &readers).await?;
        // The copy that was fetched to resume from is now held as the cycle's own.
        field.shared.release_all(&field.updates);
        let journal = Journal {
            order: field.known.order.id.clone(),
            epoch: field.known.order.epoch,
            cycles_done,
            global: begin.global,
            control: begin.control,
            state,
            readers: readers.iter().copied().collect(),
            history,
            unreported,
            done: None,
            counted,
            counts_all,
        };
        Self::with(field, journal, path, readers, stop).await
    }

    async fn with(
        field: Arc<Field>,
        journal: Journal,
        path: PathBuf,
        readers: Readers,
        stop: CancellationToken,
    ) -> Result<Prepared, Rejection> {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let (closed, to_report) = mpsc::channel(AHEAD_MAX);
        let waiting: VecDeque<CycleReport> = journal.unreported.iter().cloned().collect();
        let unreported: Unreported = Arc::new(Mutex::new(waiting.clone()));
        let reporter = tokio::spawn(report::report(field.clone(), to_report, unreported.clone()));
        for report in waiting {
            closed.send(report).await.map_err(|_| no_reporter())?;
        }
        Ok(Prepared::ToDo(Box::new(Self {
            core: Core::new(course_of(&field.conduct), journal.cycles_done),
            field,
            journal,
            path,
            readers,
            unreported,
            sender,
            receiver,
            closed,
            reporter,
            tasks: HashMap::new(),
            watches: HashMap::new(),
            wake: None,
            cycle_began: Instant::now(),
            stop,
        })))
    }
}

/// Whether the journal goes on from what the center knows. Another conductor may have gone on from an earlier state in
/// the meantime: what this one did after that is of no use then.
fn goes_on_from(journal: &Journal, resume: &Resume) -> bool {
    let at = (resume.cycles_done, resume.state.id);
    (journal.cycles_done, journal.state.id) == at || journal.history.contains(&at)
}

fn readers_of(shared: &Shared, conduct: &ConductOrder) -> Readers {
    let sites = conduct.plan.sites.iter().map(|site| site.node);
    let spares = conduct.spares.iter().map(|peer| peer.node);
    only(
        sites
            .chain(spares)
            .chain(conduct.readers.iter().copied())
            .filter(|node| *node != shared.node),
    )
}

fn course_of(conduct: &ConductOrder) -> Course {
    let plan = &conduct.plan;
    let all: HashSet<u32> = conduct.accepted.iter().copied().collect();
    let accepted = |chain: &Vec<u32>| chain.iter().copied().filter(|site| all.contains(site)).collect();
    Course {
        chains: plan.chains.iter().map(accepted).collect(),
        shuffle: plan.shuffle,
        seed: plan.request.training.local.seed,
        quorum: plan.quorum,
        cycles: plan.rounds,
        deadline_ms: plan.round_deadline_ms,
    }
}
