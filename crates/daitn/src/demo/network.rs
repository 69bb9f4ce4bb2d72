//! The demo's network: a control center, ten nodes and an agent, each a process of its own on loopback with its own
//! directory and key, started by the same commands that a person would type.

use super::{
    cast::{AGENT, DATASET, FACILITATOR, FACILITIES, Facility, MODEL, PROVIDERS, Provider},
    digits::{Dealt, Digits},
    process::{self, Process, Start},
};
use crate::{
    client::Client,
    context::{ApiKey, Context},
    failure::Failure,
    files::{private_directory, read_text, write_private},
};
use daitn_messages::{
    ids::EntityKind,
    operation::{CreatedKey, CreatedToken, NewKey, NewToken, Operation, Scope},
};
use futures_util::future::{join_all, try_join_all};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the demo waits for one answer of the API.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// A join token of the demo is spent within a second; it is valid for ten minutes.
const TOKEN_VALID_MS: u64 = 600_000;

/// The network and what the demo needs to use it.
pub(crate) struct Network {
    directory: PathBuf,
    center: Process,
    nodes: BTreeMap<String, Process>,
    agent: Option<Process>,
    /// The gateway's address.
    pub(crate) url: String,
    admin: Client,
    admin_key: ApiKey,
    /// The facilitator's client.
    pub(crate) client: Client,
    key: ApiKey,
}

impl Network {
    /// Starts the control center with its gateway, and makes the facilitator's API key.
    pub(crate) async fn begin(directory: &Path) -> Result<Self, Failure> {
        for part in ["logs", "data", "nodes"] {
            private_directory(&directory.join(part))?;
        }
        let center_directory = text(&directory.join("center"));
        let mut center = Process::start(&Start {
            name: "center",
            arguments: &[
                "up",
                "--dir",
                &center_directory,
                "--domain",
                "demo",
                "--listen",
                "127.0.0.1:0",
                "--fabric-listen",
                "127.0.0.1:0",
                "--no-context",
                "--stop-with-stdin",
                "-o",
                "jsonl",
            ],
            logs: &directory.join("logs"),
            environment: &[],
        })?;
        let ready = center.ready().await?;
        let url = ready["url"]
            .as_str()
            .ok_or_else(|| Failure::internal("the center told no address"))?
            .to_owned();
        let key_file = ready["key_file"]
            .as_str()
            .ok_or_else(|| Failure::internal("the center told no key"))?;
        let admin_key = ApiKey::new(read_text(Path::new(key_file))?.trim());
        let admin = client(&url, admin_key.clone())?;
        let key = NewKey {
            organisation: super::parsed(FACILITATOR)?,
            scopes: vec![Scope::Read, Scope::Train, Scope::Deploy, Scope::Query],
            note: "demo".to_owned(),
        };
        let created: CreatedKey = admin.ask(&Operation::CreateKey(key)).await?;
        let key = ApiKey::new(created.secret);
        let client = client(&url, key.clone())?;
        let (nodes, agent, directory) = (BTreeMap::new(), None, directory.to_owned());
        Ok(Self {
            directory,
            center,
            nodes,
            agent,
            url,
            admin,
            admin_key,
            client,
            key,
        })
    }

    /// Joins and starts every node, side by side.
    pub(crate) async fn join(&mut self, digits: &Digits, dealt: &Dealt) -> Result<(), Failure> {
        for (provider, share) in PROVIDERS.iter().zip(&dealt.sites) {
            self.write_data(provider.organisation, &digits.csv(share))?;
        }
        let judges = FACILITIES.iter().filter(|f| f.kind == EntityKind::Verifier);
        for (judge, share) in judges.zip(&dealt.hold_outs) {
            self.write_data(judge.name, &digits.csv(share))?;
        }
        let this = &*self;
        let providers = PROVIDERS.iter().map(|provider| this.provider(provider));
        let facilities = FACILITIES.iter().map(|facility| this.facility(facility));
        let (providers, facilities) =
            futures_util::try_join!(try_join_all(providers), try_join_all(facilities))?;
        self.nodes.extend(providers.into_iter().chain(facilities));
        Ok(())
    }

    /// How many node processes run.
    pub(crate) fn n_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Starts the agent, and registers it on the node of one of the judges.
    pub(crate) async fn agent(&mut self) -> Result<(), Failure> {
        let mut agent = Process::start(&Start {
            name: "agent",
            arguments: &[
                "demo-agent",
                "--gateway",
                &self.url,
                "--model",
                MODEL,
                "--stop-with-stdin",
                "-o",
                "jsonl",
            ],
            logs: &self.directory.join("logs"),
            environment: &[("DAITN_API_KEY", self.key.expose())],
        })?;
        let ready = agent.ready().await?;
        self.agent = Some(agent);
        let url = ready["url"]
            .as_str()
            .ok_or_else(|| Failure::internal("the agent told no address"))?
            .to_owned();
        let judge = FACILITIES
            .iter()
            .find(|f| f.kind == EntityKind::Verifier && f.organisation == FACILITATOR);
        let judge = judge.ok_or_else(|| Failure::internal("no node for the agent"))?;
        let node = self.node_directory(judge.name);
        self.run(
            "register",
            &[
                "agent",
                "register",
                AGENT,
                &url,
                "--jurisdiction",
                "DE",
                "--node-dir",
                &node,
            ],
        )
        .await
    }

    /// Ends the process of a node at once.
    pub(crate) async fn kill(&mut self, node: &str) -> Result<(), Failure> {
        match self.nodes.remove(node) {
            Some(process) => process.kill().await,
            None => Err(Failure::internal(format!("there is no process of node {node}"))),
        }
    }

    /// A context with which other commands reach this network, with every right.
    pub(crate) fn context(&self) -> Context {
        Context {
            url: self.url.clone(),
            api_key: Some(self.admin_key.clone()),
            ca_file: None,
        }
    }

    /// Shuts everything down, the center last.
    pub(crate) async fn stop(self) {
        if let Some(agent) = self.agent {
            agent.stop().await;
        }
        join_all(self.nodes.into_values().map(Process::stop)).await;
        self.center.stop().await;
    }

    async fn provider(&self, provider: &Provider) -> Result<(String, Process), Failure> {
        let name = provider.organisation;
        self.join_node(name, name).await?;
        let data = text(&self.directory.join("data").join(format!("{name}.csv")));
        let file = text(&self.directory.join("data").join(format!("{name}.toml")));
        let node = self.node_directory(name);
        let mut arguments = vec![
            "data",
            "init",
            &data,
            "--file",
            &file,
            "--name",
            DATASET,
            "--title",
            provider.title,
            "--target",
            "label",
            "--classes",
            "0,1,2,3,4,5,6,7,8,9",
            "--jurisdiction",
            provider.jurisdiction,
            "--license",
            "CC-BY-4.0",
            "--creator",
            name,
            "--date-published",
            "1998-07-01",
            "--share-label-distribution",
            "--cohort-min",
            "3",
        ];
        if provider.forbids_commercial {
            arguments.extend(["--forbid-purpose", "commercial"]);
        }
        self.run(name, &arguments).await?;
        self.run(name, &["data", "publish", &file, "--node-dir", &node])
            .await?;
        Ok((name.to_owned(), self.run_node(name).await?))
    }

    async fn facility(&self, facility: &Facility) -> Result<(String, Process), Failure> {
        let name = facility.name;
        self.join_node(name, facility.organisation).await?;
        let node = self.node_directory(name);
        let hold_out = text(&self.directory.join("data").join(format!("{name}.csv")));
        let kind = facility.kind.as_str();
        let mut arguments = vec![
            "node",
            "attach",
            kind,
            name,
            "--jurisdiction",
            "DE",
            "--node-dir",
            &node,
        ];
        if facility.kind == EntityKind::Verifier {
            arguments.extend(["--path", &hold_out, "--target", "label"]);
        }
        self.run(name, &arguments).await?;
        Ok((name.to_owned(), self.run_node(name).await?))
    }

    async fn join_node(&self, name: &str, organisation: &str) -> Result<(), Failure> {
        let organisation = super::parsed(organisation)?;
        let token = NewToken {
            organisation,
            terminals: Vec::new(),
            uses: 1,
            valid_ms: TOKEN_VALID_MS,
        };
        let created: CreatedToken = self.admin.ask(&Operation::CreateToken(token)).await?;
        let file = self.directory.join("nodes").join(format!("{name}.token"));
        write_private(&file, created.text.as_bytes())?;
        let (given, node) = (format!("@{}", text(&file)), self.node_directory(name));
        self.run(
            name,
            &[
                "node",
                "join",
                &given,
                "--dir",
                &node,
                "--name",
                name,
                "--listen",
                "127.0.0.1:0",
            ],
        )
        .await?;
        std::fs::remove_file(&file).map_err(|error| Failure::file(&file, error))
    }

    async fn run_node(&self, name: &str) -> Result<Process, Failure> {
        let node = self.node_directory(name);
        let mut process = Process::start(&Start {
            name,
            arguments: &[
                "node",
                "run",
                "--dir",
                &node,
                "--threads",
                "1",
                "--stop-with-stdin",
                "-o",
                "jsonl",
            ],
            logs: &self.directory.join("logs"),
            environment: &[],
        })?;
        process.ready().await?;
        Ok(process)
    }

    /// Runs a command of this binary to its end.
    async fn run(&self, name: &str, arguments: &[&str]) -> Result<(), Failure> {
        let logs = self.directory.join("logs");
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        process::run(&Start {
            name,
            arguments: &arguments,
            logs: &logs,
            environment: &[],
        })
        .await
        .map(drop)
    }

    fn write_data(&self, name: &str, csv: &str) -> Result<(), Failure> {
        write_private(
            &self.directory.join("data").join(format!("{name}.csv")),
            csv.as_bytes(),
        )
    }

    fn node_directory(&self, name: &str) -> String {
        text(&self.directory.join("nodes").join(name))
    }
}

fn client(url: &str, key: ApiKey) -> Result<Client, Failure> {
    Client::new(
        &Context {
            url: url.to_owned(),
            api_key: Some(key),
            ca_file: None,
        },
        ASK_TIMEOUT,
    )
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
