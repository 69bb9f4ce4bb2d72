//! Health that does real work: a check that cannot reach what it checks says so.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::RwLock;

/// A check that takes longer than this has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

type Checked = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Check = Arc<dyn Fn() -> Checked + Send + Sync>;

/// The checks of a process.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<RwLock<Vec<(&'static str, Check)>>>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// Whether all is well.
    pub ok: bool,
    /// What is not, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Health {
    /// Adds a check: it does the thing once, for instance writes a row, and says what failed.
    pub async fn add<F, Fut>(&self, name: &'static str, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks
            .write()
            .await
            .push((name, Arc::new(move || Box::pin(check()))));
    }

    /// Runs every check, one after the other.
    pub async fn run(&self) -> Vec<Finding> {
        let checks = self.checks.read().await.clone();
        let mut findings = Vec::with_capacity(checks.len());
        for (name, check) in checks {
            let outcome = tokio::time::timeout(CHECK_TIMEOUT, check())
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())));
            findings.push(Finding {
                check: name,
                ok: outcome.is_ok(),
                cause: outcome.err(),
            });
        }
        findings
    }
}
