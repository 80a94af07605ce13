//! Actions whose questions are recorded.

use buildbee_proto::action::RECORDED;
use buildbee_proto::canonical::Canonical as _;
use buildbee_proto::execute::ActionRequest;
use buildbee_proto::observed::Observed;
use buildbee_proto::path::RelPath;

use crate::bed::{Farm, Finished, again, recorder_library};
use crate::content::GCC;

fn recorded(request: &ActionRequest) -> ActionRequest {
    again(request, |action| action.platform = vec![(RECORDED.0.to_owned(), RECORDED.1.to_owned())])
}

fn observed(done: &Finished) -> Option<Observed> {
    let digest = done.result().observed?;
    Some(Observed::from_canonical(&done.blobs[&digest]).unwrap())
}

fn has(paths: &[RelPath], path: &str) -> bool {
    paths.iter().any(|known| known.as_str() == path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_compiler_and_its_children_ask_for_is_told() {
    recorder_library();
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    let source = b"#include \"h.h\"\n#if __has_include(\"nothing.h\")\n#error\n#endif\nint f(void) { return H; }\n#warning seen\n";
    let files: [(&str, &[u8]); 2] = [("t.c", source), ("h.h", b"#define H 1\n")];
    let plain = client.request(&[GCC, "-c", "t.c", "-o", "t.o"], &files, &["t.o"]);
    let first = client.submit(&plain).await.unwrap();
    assert_eq!(first.result().observed, None, "nobody asked");

    let done = client.submit(&recorded(&plain)).await.unwrap();
    assert_eq!((done.output("w/t.o"), done.stderr()), (first.output("w/t.o"), first.stderr()));
    let told = observed(&done).unwrap();
    assert_eq!(told.files.iter().map(RelPath::as_str).collect::<Vec<_>>(), ["w/h.h", "w/t.c"]);
    assert!(has(&told.absent, "w/nothing.h"), "{:?}", told.absent);
    assert!(!has(&told.absent, "w/t.o") && !told.seen.iter().any(|path| path.as_str().starts_with("tmp/")), "{told:?}");
    for name in ["TMPDIR", "CPATH", "MAKEFLAGS"] {
        assert!(told.env.iter().any(|known| known == name), "{name}: {:?}", told.env);
    }
    assert!(!told.network);

    // From the cache it is the same, and comes along.
    let kept = client.submit(&again(&recorded(&plain), |_| {})).await.unwrap();
    assert_eq!((kept.signed.clone(), observed(&kept)), (done.signed.clone(), Some(told)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_not_told() {
    recorder_library();
    let farm = Farm::new();
    let agent = farm.agent(1).await;
    let client = farm.client(&agent).await;
    for (script, known) in [
        (":", true),
        ("date", true),
        // Closes what it can, and goes elsewhere: neither matters.
        ("cd /; exec 3>&- 4>&- 5>&-; date", true),
        ("unset LD_PRELOAD; date", false),
        ("rm -f /buildbee.d/recorder/log; ln -s t /buildbee.d/recorder/log", false),
        (": > /buildbee.d/recorder/log", false),
    ] {
        // Killed by a log that it cut short, a program has no result at all.
        let Ok(done) = client.submit(&recorded(&client.script(script, &[]))).await else {
            assert!(!known, "{script}");
            continue;
        };
        assert_eq!(observed(&done).is_some(), known && done.result().exit_code == 0, "{script}: {}", done.stderr());
    }
}
