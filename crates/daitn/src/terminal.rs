//! Terminals of a node on this machine: their files in its directory, and the word to the node if it runs.

use crate::{
    failure::Failure,
    files::{private_directory, write_private},
    output::Shown,
    paint::Paint,
    roles::{
        member::{Member, terminals},
        socket::{self, Told},
    },
};
use daitn_messages::ids::{EntityId, EntityKind, Slug};
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

/// A terminal whose file is written.
pub(crate) struct Written {
    file: PathBuf,
    entity: EntityId,
}

/// What came of publishing.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    /// The entity.
    pub(crate) entity: EntityId,
    /// Version of its descriptor; none where the node does not run.
    version: Option<u64>,
    /// Whether others find it now.
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
            (false, _) => format!(
                "{entity} takes effect when the node runs: daitn node run --dir {}",
                self.node_dir.display()
            ),
        }
    }
    fn names(&self) -> Vec<String> {
        vec![self.entity.to_string()]
    }
}

/// Writes a terminal's file into the node's directory.
pub(crate) fn write(node: &Path, options: &TerminalOptions) -> Result<Written, Failure> {
    let member = Member::load(node)?;
    let entity = EntityId {
        kind: options.kind(),
        organisation: member.organisation,
        name: options.name().clone(),
    };
    let text = options
        .to_toml()
        .map_err(|error| Failure::internal(error.to_string()))?;
    let file = file(node, options.kind(), options.name());
    private_directory(&terminals(node))?;
    write_private(&file, text.as_bytes())?;
    Ok(Written { file, entity })
}

fn file(node: &Path, kind: EntityKind, name: &Slug) -> PathBuf {
    terminals(node).join(format!("{kind}-{name}.toml"))
}

/// Tells the node, if it runs, and waits until the control center has the descriptor.
pub(crate) async fn tell(node: &Path, written: Written) -> Result<Published, Failure> {
    let Written { file, entity } = written;
    let file = std::fs::canonicalize(&file).map_err(|error| Failure::file(&file, error))?;
    let Some(_) = socket::ask(node, &AdminRequest::Attach { file }).await? else {
        return Ok(Published {
            entity,
            version: None,
            published: false,
            node_dir: node.to_owned(),
        });
    };
    let begun = Instant::now();
    loop {
        if let Some(Told::Status(status)) = socket::ask(node, &AdminRequest::Status).await?
            && let Some(found) = status.terminals.iter().find(|t| t.entity == entity.to_string())
        {
            if let Some(problem) = &found.problem {
                return Err(problem.clone().into());
            }
            if found.attached {
                return Ok(Published {
                    entity,
                    version: Some(found.version),
                    published: true,
                    node_dir: node.to_owned(),
                });
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

/// Removes a terminal's file, and detaches it from the node if that runs.
pub(crate) async fn withdraw(node: &Path, kind: EntityKind, name: &Slug) -> Result<EntityId, Failure> {
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
    socket::ask(
        node,
        &AdminRequest::Detach {
            entity: entity.clone(),
        },
    )
    .await?;
    Ok(entity)
}
