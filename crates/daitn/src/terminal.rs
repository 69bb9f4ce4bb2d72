//! Terminals of a node on this machine: their files in its directory, and the word to the node if it runs.

use crate::{
    failure::{Exit, Failure},
    files::{absolute, private_directory, read_text, write_private},
    output::Shown,
    paint::Paint,
    preview,
    roles::{
        member::{Member, terminals},
        socket::{self, ContactTold, Told},
    },
};
use daitn_messages::{
    ids::{EntityId, EntityKind, Slug},
    rejection::Code,
};
use daitn_terminals::{AdminRequest, TerminalOptions};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The control center has taken a descriptor within this time, or something is wrong that is worth telling.
const ATTACHED_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What came of publishing.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    /// The entity.
    pub(crate) entity: EntityId,
    /// Version of its descriptor; none where the node does not run.
    version: Option<u64>,
    /// Whether the control center has this version. Where it is away, the node obeys it already.
    published: bool,
    /// The node's directory.
    node_dir: PathBuf,
}

impl Shown for Published {
    fn human(&self, paint: Paint, _: bool) -> String {
        let entity = paint.name(&self.entity);
        match (self.published, self.version) {
            (true, Some(version)) => format!("{entity} version {version} is published"),
            (true, None) => format!("{entity} is published"),
            (false, Some(version)) => format!(
                "{entity} version {version}: the node obeys it from now on. The control center is away and is told when \
                 it is back."
            ),
            (false, None) => format!(
                "{entity} takes effect when the node runs: daitn node run --dir {}",
                self.node_dir.display()
            ),
        }
    }
    fn names(&self) -> Vec<String> {
        vec![self.entity.to_string()]
    }
}

/// Gives a terminal to a node: it is looked at first as the running node would, and what is refused leaves the node as
/// it was.
pub(crate) async fn publish(node: &Path, options: &TerminalOptions) -> Result<Published, Failure> {
    let member = Member::load(node)?;
    // An agent may come up later than the node; everything else is there or wrong.
    if options.kind() != EntityKind::Agent {
        // What is found wrong only when the node is started would be found by nobody who can mend it.
        let key = crate::files::key(&node.join("node.key"))?;
        preview::descriptor(options.clone(), member.organisation.clone(), Some(key)).await?;
    }
    let entity = EntityId {
        kind: options.kind(),
        organisation: member.organisation,
        name: options.name().clone(),
    };
    let text = options
        .to_toml()
        .map_err(|error| Failure::internal(error.to_string()))?;
    let file = file(node, options.kind(), options.name());
    let before = file.exists().then(|| read_text(&file)).transpose()?;
    private_directory(&terminals(node))?;
    write_private(&file, text.as_bytes())?;
    let told = tell(node, &file, &entity).await;
    if let Err(failure) = &told
        && failure.exit != Exit::TimeOut
    {
        undo(node, &file, &entity, before.as_deref()).await?;
    }
    told
}

/// The node as it was before a terminal of this name was refused.
async fn undo(node: &Path, file: &Path, entity: &EntityId, before: Option<&str>) -> Result<(), Failure> {
    let request = match before {
        Some(text) => {
            write_private(file, text.as_bytes())?;
            AdminRequest::Attach {
                file: absolute(file)?,
            }
        }
        None => {
            std::fs::remove_file(file).map_err(|error| Failure::file(file, error))?;
            AdminRequest::Detach {
                entity: entity.clone(),
            }
        }
    };
    if let Err(failure) = socket::ask(node, &request).await {
        // What it never opened it need not close; the refusal is what counts.
        tracing::debug!("the node: {failure:?}");
    }
    Ok(())
}

fn file(node: &Path, kind: EntityKind, name: &Slug) -> PathBuf {
    terminals(node).join(format!("{kind}-{name}.toml"))
}

/// Tells the node, if it runs, and waits until the control center has the descriptor, or is known to be away.
async fn tell(node: &Path, file: &Path, entity: &EntityId) -> Result<Published, Failure> {
    let published = |version: Option<u64>, published: bool| Published {
        entity: entity.clone(),
        version,
        published,
        node_dir: node.to_owned(),
    };
    let file = absolute(file)?;
    if socket::ask(node, &AdminRequest::Attach { file }).await?.is_none() {
        return Ok(published(None, false));
    }
    let begun = Instant::now();
    loop {
        if let Some(Told::Status(status)) = socket::ask(node, &AdminRequest::Status).await?
            && let Some(found) = status.terminals.iter().find(|t| t.entity == entity.to_string())
        {
            match (&found.problem, status.contact) {
                (Some(problem), _) => return Err(problem.clone().into()),
                (None, _) if found.attached => return Ok(published(Some(found.version), true)),
                (None, ContactTold::Connecting { cause: Some(_) }) => {
                    return Ok(published(Some(found.version), false));
                }
                (None, ContactTold::Refused { cause }) => return Err(cause.into()),
                (None, _) => {}
            }
        }
        if begun.elapsed() > ATTACHED_TIMEOUT {
            return Err(
                Failure::timed_out(format!("the control center has not taken {entity} in time")).hint(
                    "It is tried again as long as the node runs. `daitn doctor` looks at the connection.",
                ),
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What came of withdrawing.
#[derive(Debug, Serialize)]
pub(crate) struct Withdrawn {
    /// What is withdrawn.
    entity: EntityId,
    /// Whether the node had it open; none where the node does not run.
    was_open: Option<bool>,
}

impl Shown for Withdrawn {
    fn human(&self, paint: Paint, _: bool) -> String {
        let entity = paint.name(&self.entity);
        match self.was_open {
            Some(true) | None => format!("{entity} is withdrawn"),
            Some(false) => format!("{entity} is withdrawn; the node could not open it"),
        }
    }
    fn names(&self) -> Vec<String> {
        vec![self.entity.to_string()]
    }
}

/// Removes a terminal's file, and detaches it from the node if that runs.
pub(crate) async fn withdraw(node: &Path, kind: EntityKind, name: &Slug) -> Result<Withdrawn, Failure> {
    let member = Member::load(node)?;
    let entity = EntityId {
        kind,
        organisation: member.organisation,
        name: name.clone(),
    };
    let file = file(node, kind, name);
    if !file.exists() {
        return Err(daitn_messages::rejection::Rejection::not_found("terminal", &entity).into());
    }
    std::fs::remove_file(&file).map_err(|error| Failure::file(&file, error))?;
    let request = AdminRequest::Detach {
        entity: entity.clone(),
    };
    let was_open = match socket::ask(node, &request).await {
        Ok(Some(Told::Detached { was_open })) => Some(was_open),
        Ok(_) => None,
        // A file that the running node never took.
        Err(failure) if failure.rejection.code == Code::NotFound => Some(false),
        Err(failure) => return Err(failure),
    };
    Ok(Withdrawn { entity, was_open })
}
