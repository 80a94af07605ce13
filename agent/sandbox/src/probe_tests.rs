//! What the probe says of each way in which a host can refuse.

use super::*;

fn step(step: Step, errno: Errno) -> SandboxError {
    SandboxError::Step { step, source: errno.into() }
}

fn host() -> Host {
    Host { release: "6.1.0-13-amd64".into(), max_user_namespaces: Some(1000), ..Host::default() }
}

fn found(error: SandboxError, host: &Host) -> ProbeFailure {
    let failure = diagnose(error, host, Path::new("/scratch"));
    assert!(failure.to_string().contains("\nhint: "), "{failure}");
    failure
}

#[test]
fn settings_that_forbid_user_namespaces() {
    let none = Host { max_user_namespaces: Some(0), ..host() };
    let failure = found(step(Step::Namespaces, Errno::ENOSPC), &none);
    insta::assert_snapshot!(failure, @r"
    user namespaces are turned off (user.max_user_namespaces is 0)
    hint: as root, run `sysctl -w user.max_user_namespaces=15000` and put the line `user.max_user_namespaces = 15000` into /etc/sysctl.d/60-buildbee.conf
    ");
    let debian = Host { unprivileged_userns_clone: Some(0), ..host() };
    let failure = found(step(Step::Namespaces, Errno::EPERM), &debian);
    assert!(matches!(failure, ProbeFailure::UserNamespacesOff { setting: "kernel.unprivileged_userns_clone", .. }));
    let ubuntu = Host { apparmor_restrict: Some(1), ..host() };
    for error in [step(Step::IdMaps, Errno::EPERM), step(Step::PrivateMounts, Errno::EACCES)] {
        assert!(matches!(found(error, &ubuntu), ProbeFailure::AppArmor));
    }
    assert!(matches!(found(step(Step::Overlay, Errno::EACCES), &ubuntu), ProbeFailure::AppArmor));
    let root = Host { is_root: true, ..ubuntu };
    assert!(matches!(found(step(Step::Namespaces, Errno::EPERM), &root), ProbeFailure::UserNamespaces { .. }));
    let message = "bwrap: No permissions to create new namespace, likely because ...".to_owned();
    assert!(matches!(found(SandboxError::Setup { message }, &debian), ProbeFailure::UserNamespacesOff { .. }));
}

#[test]
fn overlays_that_are_refused() {
    let old = Host { release: "5.10.0".into(), ..host() };
    assert!(matches!(found(step(Step::Overlay, Errno::EPERM), &old), ProbeFailure::OverlayRefused { .. }));
    assert!(matches!(found(step(Step::Overlay, Errno::EPERM), &host()), ProbeFailure::OverlayRefused { .. }));
    assert!(matches!(found(step(Step::Overlay, Errno::ENODEV), &host()), ProbeFailure::OverlayMissing));
    assert!(matches!(found(step(Step::Overlay, Errno::EINVAL), &host()), ProbeFailure::OverlayFolder { .. }));
    for (release, before) in [("4.19.0", true), ("5.10", true), ("5.11.0", false), ("6.1.0-x", false), ("?", false)] {
        assert_eq!(Host { release: release.into(), ..host() }.is_before_overlay(), before, "{release}");
    }
}

#[test]
fn a_covered_proc_and_the_rest() {
    let message = "bwrap: Can't mount proc on /newroot/proc: Operation not permitted".to_owned();
    assert!(matches!(found(SandboxError::Setup { message }, &host()), ProbeFailure::ProcMasked { .. }));
    assert!(matches!(found(SandboxError::HelperGone, &host()), ProbeFailure::Other(_)));
}

#[test]
fn trial_programs_have_the_size_that_they_state() {
    for arch in ["x86_64", "aarch64", "riscv64"] {
        let elf = trial_program(arch).unwrap();
        assert_eq!(elf[96..104], u64::try_from(elf.len()).unwrap().to_le_bytes(), "{arch}");
    }
    assert!(trial_program("pdp11").is_none());
}
