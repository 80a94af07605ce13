//! A toolchain with a file in Nix's store that neither another agent nor the client has.

use std::fs;
use std::path::Path;

use buildbee_proto::canonical::Canonical;
use buildbee_proto::digest::Digest;
use buildbee_proto::error::ErrorCode;
use buildbee_proto::toolchain::Toolchain;

use crate::bed::{Client, Farm, RunningAgent};
use crate::content::shell;

const PATH: &str = "/nix/store/0wwbmlzz12c1mn5a754ndya7mkbbfknm-words/share/word";
const WORD: &[u8] = b"from nowhere else\n";

/// A client of `agent` whose toolchain has a file that the client has lost.
async fn client(farm: &Farm, agent: &RunningAgent) -> Client {
    let mut client = farm.client(agent).await;
    let root = shell(&client.store).file(Path::new(PATH), Digest::of(WORD), false).root(&client.store);
    client.toolchain = Toolchain { root, label: "a shell and a word".to_owned(), ..client.toolchain };
    client.store.put_bytes(&client.toolchain.to_canonical()).unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_peer_has_is_found_here_or_brought_by_the_command() {
    let farm = Farm::new();
    let root = tempfile::tempdir().unwrap();
    let there = root.path().join(PATH.trim_start_matches('/'));
    fs::create_dir_all(there.parent().unwrap()).unwrap();
    fs::write(&there, WORD).unwrap();
    let folder = root.path().to_owned();
    let nothing = root.path().join("nothing");
    let own = farm.agent_with(|settings| settings.nix_root.clone_from(&folder)).await;
    let hooked = farm
        .agent_with(|settings| {
            settings.nix_root.clone_from(&nothing);
            let script = format!("sed s,^,{},", folder.display());
            settings.nix_hook = ["sh", "-c", &script].map(str::to_owned).to_vec();
        })
        .await;
    let neither = farm.agent_with(|settings| settings.nix_root.clone_from(&nothing)).await;
    let script = format!("read line <{PATH} && echo \"$line\"");
    for agent in [&own, &hooked] {
        let client = client(&farm, agent).await;
        let finished = client.submit(&client.script(&script, &[])).await.unwrap();
        assert_eq!(finished.stdout(), WORD, "{}", finished.stderr());
    }
    let client = client(&farm, &neither).await;
    let failed = client.submit(&client.script(&script, &[])).await.unwrap_err();
    assert_eq!(failed.code, ErrorCode::MissingBlob, "{failed:?}");
}
