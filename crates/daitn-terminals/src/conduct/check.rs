//! Whether what a site answers is an answer to what it was asked: signature, job, epoch, cycle, input, sizes. Pure.

use super::events::Step;
use daitn_messages::{
    ids::{ArtifactId, EntityId, JobId, NodeId},
    receipt::{Outcome, Receipt},
    rejection::{Code, Rejection},
    signed::Signed,
};

/// What a site was asked, as far as its answer has to repeat it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    /// Its place in the plan.
    pub site: u32,
    /// Its node.
    pub node: NodeId,
    /// Its dataset.
    pub dataset: EntityId,
    /// The job.
    pub job: JobId,
    /// The conductor's epoch.
    pub epoch: u64,
    /// The cycle.
    pub cycle: u32,
    /// The weights to begin from.
    pub input: ArtifactId,
    /// Length of a file of weights, bytes.
    pub weights_bytes: u64,
    /// Length of a file of SCAFFOLD's control variate, bytes; none for other strategies.
    pub control_bytes: Option<u64>,
    /// What the plan expects the site to have.
    pub records: u64,
}

/// What the site made.
///
/// # Errors
/// [`Code::BadSignature`] where it is not the site's word, [`Code::UpdateRefused`] where it is not what was asked.
pub(super) fn step_of(receipt: &Signed<Receipt>, asked: &Asked) -> Result<Step, Rejection> {
    let opened = receipt.open(asked.node)?;
    let refuse = |message: String| Err(Rejection::new(Code::UpdateRefused, message));
    if opened.job.as_ref() != Some(&asked.job)
        || opened.terminal != asked.dataset
        || opened.node != asked.node
    {
        return refuse("the receipt is of another job or dataset".to_owned());
    }
    let Outcome::Trained(trained) = opened.outcome else {
        return refuse("the receipt is not of a training step".to_owned());
    };
    if opened.epoch != asked.epoch || trained.cycle != asked.cycle || trained.input != asked.input {
        return refuse(format!(
            "the update is of epoch {} and cycle {}, not of epoch {} and cycle {} from the same weights",
            opened.epoch,
            trained.cycle.saturating_add(1),
            asked.epoch,
            asked.cycle.saturating_add(1)
        ));
    }
    if trained.output.bytes != asked.weights_bytes {
        let (found, expected) = (trained.output.bytes, asked.weights_bytes);
        return refuse(format!(
            "the update has {found} bytes where the model's weights take {expected}"
        ));
    }
    if trained.control.map(|control| control.bytes) != asked.control_bytes {
        return refuse(
            "the change of the control variate is missing, not asked for, or of another size".to_owned(),
        );
    }
    // Records are told in tens; a site must not weigh more than it said it has.
    let examples_max = asked.records.saturating_mul(2).saturating_add(10);
    if trained.examples == 0 || trained.examples > examples_max {
        let (found, records) = (trained.examples, asked.records);
        return refuse(format!(
            "the update claims {found} examples of a site that described {records} records"
        ));
    }
    if !(trained.loss.is_finite() && trained.train_ms.is_finite() && trained.train_ms >= 0.0) {
        return refuse("loss or time of the step is not a finite number".to_owned());
    }
    Ok(Step {
        site: asked.site,
        output: trained.output,
        control: trained.control,
        examples: trained.examples,
        loss: trained.loss,
        train_ms: trained.train_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use daitn_messages::{receipt::Trained, session::ArtifactRef, signed::NodeKey, units::UnixMillis};

    fn trained() -> Trained {
        Trained {
            cycle: 3,
            input: ArtifactId::of(b"input"),
            output: ArtifactRef {
                id: ArtifactId::of(b"output"),
                bytes: 100,
            },
            control: None,
            examples: 95,
            steps: 9,
            loss: 0.5,
            train_ms: 1.0,
            policies: Vec::new(),
        }
    }

    fn check(spoil: impl FnOnce(&mut Receipt, &mut Trained)) -> Result<Step, Rejection> {
        let key = NodeKey::from_bytes(&[7; 32]);
        let dataset: EntityId = "dataset:st-mary/digits".parse().unwrap();
        let job = JobId::new(1, [0; 10]);
        let asked = Asked {
            site: 2,
            node: key.id(),
            dataset: dataset.clone(),
            job: job.clone(),
            epoch: 4,
            cycle: 3,
            input: ArtifactId::of(b"input"),
            weights_bytes: 100,
            control_bytes: None,
            records: 90,
        };
        let mut trained = trained();
        let mut receipt = Receipt {
            order: daitn_messages::ids::OrderId::new(1, [0; 10]),
            job: Some(job),
            epoch: 4,
            node: key.id(),
            terminal: dataset,
            at: UnixMillis(0),
            outcome: Outcome::Serving,
        };
        spoil(&mut receipt, &mut trained);
        if receipt.outcome == Outcome::Serving {
            receipt.outcome = Outcome::Trained(trained);
        }
        step_of(&Signed::seal(&receipt, &key), &asked)
    }

    #[test]
    fn an_answer_to_another_question_is_not_admitted() {
        assert_eq!(check(|_, _| {}).unwrap().site, 2);
        let spoils: [fn(&mut Receipt, &mut Trained); 14] = [
            |receipt, _| receipt.job = None,
            |receipt, _| receipt.epoch = 3,
            |receipt, _| receipt.epoch = 5,
            |receipt, _| receipt.node = NodeId([1; 32]),
            |receipt, _| receipt.terminal = "dataset:st-mary/others".parse().unwrap(),
            |receipt, _| receipt.outcome = Outcome::Stopped,
            |_, trained| trained.cycle = 2,
            |_, trained| trained.input = ArtifactId::of(b"other"),
            |_, trained| trained.output.bytes = 1000,
            |_, trained| trained.control = Some(trained.output),
            |_, trained| trained.examples = 0,
            |_, trained| trained.examples = 1_000_000,
            |_, trained| trained.loss = f64::NAN,
            |_, trained| trained.train_ms = -1.0,
        ];
        for (n, spoil) in spoils.into_iter().enumerate() {
            assert_eq!(check(spoil).unwrap_err().code, Code::UpdateRefused, "spoil {n}");
        }
    }

    #[test]
    fn another_signer_is_not_believed() {
        let asked = |node| Asked {
            site: 0,
            node,
            dataset: "dataset:a/b".parse().unwrap(),
            job: JobId::new(1, [0; 10]),
            epoch: 0,
            cycle: 3,
            input: ArtifactId::of(b"input"),
            weights_bytes: 100,
            control_bytes: None,
            records: 90,
        };
        let (site, mallory) = (NodeKey::from_bytes(&[1; 32]), NodeKey::from_bytes(&[2; 32]));
        let receipt = Receipt {
            order: daitn_messages::ids::OrderId::new(1, [0; 10]),
            job: Some(JobId::new(1, [0; 10])),
            epoch: 0,
            node: site.id(),
            terminal: "dataset:a/b".parse().unwrap(),
            at: UnixMillis(0),
            outcome: Outcome::Trained(trained()),
        };
        assert!(step_of(&Signed::seal(&receipt, &site), &asked(site.id())).is_ok());
        let forged = Signed::seal(&receipt, &mallory);
        assert_eq!(
            step_of(&forged, &asked(site.id())).unwrap_err().code,
            Code::BadSignature
        );
    }
}
