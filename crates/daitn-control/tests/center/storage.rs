//! Disks that are full and files that are damaged: what is acknowledged is written, and people are told what to do.

use crate::lab::Lab;
use daitn_control::{CenterError, StartError, core::RestoreError};
use daitn_messages::{
    operation::{Answer, NewToken, Operation},
    rejection::{Code, Rejection},
};
use daitn_store::StoreError;
use std::fs;

fn new_token() -> Operation {
    Operation::CreateToken(NewToken {
        organisation: "north".parse().unwrap(),
        terminals: Vec::new(),
        uses: 1,
        valid_ms: 60_000,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_acknowledged_and_says_what_to_do() {
    /// More tokens than any of these disks has room for.
    const TOKENS_MAX: usize = 10_000;
    let mut lab = Lab::new().await;
    let size = || {
        fs::metadata(lab.directory.path().join("center.db"))
            .unwrap()
            .len()
    };
    lab.center.shutdown().await;
    let bytes_max = size() + 64 * 1024;
    lab.restart_center_within(bytes_max).await;
    let mut acknowledged = Vec::new();
    let refusal: Rejection = loop {
        match lab.call(new_token()).await {
            Ok(Answer::Token(token)) => acknowledged.push(token.token),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => break refusal,
        }
        assert!(acknowledged.len() < TOKENS_MAX, "the disk never was full");
    };
    assert!(!acknowledged.is_empty());
    let told = |rejection: &Rejection| {
        assert_eq!(rejection.code, Code::ControlUnavailable, "{rejection}");
        assert!(rejection.message.contains("no room on the disk"), "{rejection}");
        assert!(rejection.hint.contains("Make room"), "{rejection:?}");
    };
    told(&refusal);
    // It stops, and says why: to who asks later, and to the process that runs it.
    let stopped = lab.center.ended().await.unwrap();
    assert!(
        matches!(stopped, CenterError::Store(StoreError::Full { .. })),
        "{stopped:?}"
    );
    assert!(stopped.remedy().unwrap().contains("Make room"));
    told(&lab.call(Operation::ListTokens).await.unwrap_err());

    lab.restart_center().await;
    let Ok(Answer::Tokens(kept)) = lab.call(Operation::ListTokens).await else {
        panic!()
    };
    let mut kept: Vec<_> = kept.into_iter().map(|token| token.token).collect();
    kept.sort();
    acknowledged.sort();
    assert_eq!(kept, acknowledged);
    lab.call(new_token()).await.unwrap();
    lab.center.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_ends_the_start_with_its_cause_and_remedy() {
    let lab = Lab::new().await;
    lab.call(Operation::SetPolicy(
        "// a canary\nforbid (principal, action, resource) when { false };".to_owned(),
    ))
    .await
    .unwrap();
    lab.center.shutdown().await;
    let path = lab.directory.path().join("center.db");
    let mut bytes = fs::read(&path).unwrap();
    let at: Vec<usize> = (0..bytes.len() - 8)
        .filter(|at| &bytes[*at..*at + 8] == b"a canary")
        .collect();
    assert!(!at.is_empty());
    for at in at {
        bytes[at] = b'A';
    }
    fs::write(&path, bytes).unwrap();
    let error = lab.try_start().await.unwrap_err();
    assert!(
        matches!(
            &error,
            StartError::Store(StoreError::Corrupted { .. })
                | StartError::Restore(RestoreError::Record(StoreError::Corrupted { .. }))
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("domain-policy"), "{error}");
    assert!(error.remedy().unwrap().contains("backup"), "{error}");
}
