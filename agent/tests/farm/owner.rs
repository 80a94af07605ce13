//! What the owner of the machine says counts, whoever asks.

use std::time::Duration;

use buildbee_proto::error::{ErrorCode, Retry};

use crate::bed::{Farm, again, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_blocked_gets_nothing() {
    let farm = Farm::new();
    let agent = farm.agent_with(|settings| settings.owner.blocked = vec!["client of the tests".to_owned()]).await;
    let client = farm.client(&agent).await;
    let error = client.submit(&client.script("true", &[])).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Refused, Retry::OtherAgent));
    assert_eq!(agent.get().n_busy(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_handed_back_when_the_owner_comes() {
    let farm = Farm::new();
    let agent = farm.agent_with(|settings| settings.owner.hand_back_after = Duration::from_millis(300)).await;
    let client = farm.client(&agent).await;
    let request = client.script("while :; do :; done", &[]);
    let present = agent.dir.path().join("owner-present");
    let come = async {
        until("the action", Duration::from_secs(20), || agent.get().n_busy() == 1).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::write(&present, "").unwrap();
    };
    let (ended, ()) = tokio::join!(client.submit(&request), come);
    let error = ended.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Busy, Retry::OtherAgent), "{error}");
    agent.idle().await;
    let error = client.submit(&client.script("true", &[])).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Busy, Retry::OtherAgent), "{error}");
    std::fs::remove_file(&present).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.submit(&client.script("true", &[])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_has_its_share() {
    let farm = Farm::new();
    let agent = farm.agent_with(|settings| settings.owner.daily_cpu = Some(Duration::from_millis(1))).await;
    let client = farm.client(&agent).await;
    let request = client.script("n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done", &[]);
    client.submit(&request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let error = client.submit(&again(&request, |action| action.timeout_ms += 1)).await.unwrap_err();
    assert_eq!((error.code, error.retry), (ErrorCode::Busy, Retry::OtherAgent), "{error}");
    let history = std::fs::read_to_string(agent.dir.path().join("history.jsonl")).unwrap();
    assert!(history.contains("client of the tests") && history.contains("dash"), "{history}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_is_taken_back_leaves_a_line_all_the_same() {
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let request = client.script("while :; do :; done", &[]);
    let long_enough = async {
        until("the action", Duration::from_secs(20), || agent.get().n_busy() == 1).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
    };
    tokio::select! {
        ended = client.submit(&request) => panic!("{:?}", ended.err()),
        () = long_enough => {}
    }
    let file = agent.dir.path().join("history.jsonl");
    until("a line", Duration::from_secs(20), || {
        std::fs::read_to_string(&file).is_ok_and(|history| history.contains("\"exit\":null"))
    })
    .await;
    agent.idle().await;
}
