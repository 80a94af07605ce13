//! The system-call filter of every command, as bytes that bubblewrap loads.
//!
//! A second wall behind namespaces and dropped capabilities: calls that no compiler makes and that kernel holes are found in. A
//! filter denies; it does not list what is allowed, since a toolchain may use any ordinary call.

use std::collections::BTreeMap;

use nix::libc;

/// Refused with "operation not permitted".
const DENIED: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
];

/// `clone` flags that make a namespace.
const NAMESPACE_FLAGS: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Types characters into the terminal as if the user had.
const TIOCSTI: u32 = 0x5412;

/// What the kernel calls this architecture (`AUDIT_ARCH_…` of `linux/audit.h`); no filter where it has no name here.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xC000_00F3)
} else {
    None
};

/// Numbers from here on are calls of x32, another convention of the same architecture: programs of any toolchain make none.
const FIRST_FOREIGN: u32 = if cfg!(target_arch = "x86_64") { 0x4000_0000 } else { u32::MAX };

/// Where a call's number, the architecture and the low half of an argument stand (`struct seccomp_data`, little-endian).
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// "Operation not permitted".
    Deny,
    /// "No such call": libraries then take the older one.
    Absent,
    /// [`Deny`](Self::Deny) if one of the bits is set in the argument of this number.
    DenyBits(u32, u32),
    /// [`Deny`](Self::Deny) if the argument of this number has this value in its low half, which is all that the kernel looks at.
    DenyValue(u32, u32),
}

/// The filters that bubblewrap loads: one, since each is translated and looked through again for every command, and none on an
/// architecture without a name here.
///
/// For each command the kernel also follows the filter once for every system call there is, to note those that are always allowed. So a call
/// is found by halving: an ordinary list of rules took 0.2 ms of processor time for that alone.
pub(crate) fn filters() -> Vec<Vec<u8>> {
    let program = ARCHITECTURE.map(|architecture| program(architecture, &verdicts()));
    program.into_iter().map(|program| program.into_iter().flat_map(Instruction::bytes).collect()).collect()
}

fn verdicts() -> BTreeMap<u32, Verdict> {
    let namespaces = NAMESPACE_FLAGS.iter().fold(0, |all, flag| all | flag.cast_unsigned());
    let denied = DENIED.iter().map(|call| (*call, Verdict::Deny));
    let others = [
        (libc::SYS_clone, Verdict::DenyBits(0, namespaces)),
        // Its flags are in memory, which a filter can't read.
        (libc::SYS_clone3, Verdict::Absent),
        (libc::SYS_ioctl, Verdict::DenyValue(1, TIOCSTI)),
    ];
    denied.chain(others).filter_map(|(call, verdict)| Some((u32::try_from(call).ok()?, verdict))).collect()
}

/// One instruction of a filter (`struct sock_filter`; the codes are those of `linux/bpf_common.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    /// How many instructions to pass over where the condition holds, and where it does not.
    skip: (u8, u8),
    operand: u32,
}

impl Instruction {
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const IF_AT_LEAST: u16 = 0x35;
    const IF_ANY_BIT: u16 = 0x45;
    const JUMP: u16 = 0x05;
    const RETURN: u16 = 0x06;

    const fn load(at: u32) -> Self {
        Self { code: Self::LOAD, skip: (0, 0), operand: at }
    }
    /// The next instruction only where the condition holds; the one after it otherwise.
    const fn only_if(code: u16, operand: u32) -> Self {
        Self { code, skip: (0, 1), operand }
    }
    /// Goes on behind `others`, of which there are a few hundred at most.
    fn pass(others: &[Self]) -> Self {
        Self { code: Self::JUMP, skip: (0, 0), operand: u32::try_from(others.len()).unwrap_or(u32::MAX) }
    }
    const fn answer(operand: u32) -> Self {
        Self { code: Self::RETURN, skip: (0, 0), operand }
    }
    const fn refuse(errno: i32) -> Self {
        Self::answer(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned())
    }
    const ALLOW: Self = Self::answer(libc::SECCOMP_RET_ALLOW);

    /// As the kernel lays it out.
    fn bytes(self) -> Vec<u8> {
        [&self.code.to_ne_bytes()[..], &[self.skip.0, self.skip.1], &self.operand.to_ne_bytes()].concat()
    }
}

fn program(architecture: u32, verdicts: &BTreeMap<u32, Verdict>) -> Vec<Instruction> {
    let calls: Vec<(u32, Verdict)> = verdicts.iter().map(|(call, verdict)| (*call, *verdict)).collect();
    let mut program = vec![
        Instruction::load(ARCHITECTURE_AT),
        // Numbers of another architecture mean other calls.
        Instruction { code: Instruction::IF_EQUAL, skip: (1, 0), operand: architecture },
        Instruction::answer(libc::SECCOMP_RET_KILL_PROCESS),
        Instruction::load(NUMBER_AT),
        Instruction::only_if(Instruction::IF_AT_LEAST, FIRST_FOREIGN),
        Instruction::refuse(libc::ENOSYS),
    ];
    program.extend(by_halves(&calls));
    program
}

/// Answers for `calls`, which are in order.
fn by_halves(calls: &[(u32, Verdict)]) -> Vec<Instruction> {
    let (below, above) = calls.split_at(calls.len() / 2);
    let Some(&(first, verdict)) = above.first() else { return vec![Instruction::ALLOW] };
    if below.is_empty() {
        return of_call(first, verdict);
    }
    let (lower, upper) = (by_halves(below), by_halves(above));
    // Only a jump without a condition goes any distance.
    let mut program = vec![Instruction::only_if(Instruction::IF_AT_LEAST, first), Instruction::pass(&lower)];
    program.extend(lower);
    program.extend(upper);
    program
}

/// The answer for `call`, and that everything else is allowed.
fn of_call(call: u32, verdict: Verdict) -> Vec<Instruction> {
    let is_call = |n_passed| Instruction { code: Instruction::IF_EQUAL, skip: (0, n_passed), operand: call };
    let of_argument = |argument: u32, code, operand| {
        let load = Instruction::load(ARGUMENTS_AT + 8 * argument);
        let condition = Instruction::only_if(code, operand);
        vec![is_call(3), load, condition, Instruction::refuse(libc::EPERM), Instruction::ALLOW]
    };
    match verdict {
        Verdict::Deny => vec![is_call(1), Instruction::refuse(libc::EPERM), Instruction::ALLOW],
        Verdict::Absent => vec![is_call(1), Instruction::refuse(libc::ENOSYS), Instruction::ALLOW],
        Verdict::DenyBits(argument, bits) => of_argument(argument, Instruction::IF_ANY_BIT, bits),
        Verdict::DenyValue(argument, value) => of_argument(argument, Instruction::IF_EQUAL, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u32 = 7;

    /// What the kernel makes of a call: its answer, and how many instructions that took.
    fn answer(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
        let low = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap();
        let (mut at, mut loaded) = (0, 0);
        for n_steps in 1.. {
            let Instruction { code, skip, operand } = program[at];
            at += 1;
            let branch = |holds: bool| usize::from(if holds { skip.0 } else { skip.1 });
            match code {
                Instruction::LOAD if operand == NUMBER_AT => loaded = number,
                Instruction::LOAD if operand == ARCHITECTURE_AT => loaded = architecture,
                Instruction::LOAD => loaded = low(arguments[((operand - ARGUMENTS_AT) / 8) as usize]),
                Instruction::IF_EQUAL => at += branch(loaded == operand),
                Instruction::IF_AT_LEAST => at += branch(loaded >= operand),
                Instruction::IF_ANY_BIT => at += branch(loaded & operand != 0),
                Instruction::JUMP => at += operand as usize,
                Instruction::RETURN => return (operand, n_steps),
                _ => panic!("{code:#x}"),
            }
        }
        unreachable!()
    }

    fn expected(verdict: Option<&Verdict>, arguments: [u64; 6]) -> u32 {
        let refuse = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
        let is_denied = match verdict {
            Some(Verdict::Deny) => true,
            Some(Verdict::Absent) => return refuse(libc::ENOSYS),
            Some(Verdict::DenyBits(n, bits)) => arguments[*n as usize] & u64::from(*bits) != 0,
            Some(Verdict::DenyValue(n, value)) => arguments[*n as usize] & 0xFFFF_FFFF == u64::from(*value),
            None => false,
        };
        if is_denied { refuse(libc::EPERM) } else { libc::SECCOMP_RET_ALLOW }
    }

    #[test]
    fn each_call_has_its_verdict_after_few_instructions() {
        let (verdicts, tiocsti) = (verdicts(), u64::from(TIOCSTI));
        assert_eq!(verdicts.len(), DENIED.len() + 3);
        let program = program(OURS, &verdicts);
        let thread = u64::from((libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_THREAD).cast_unsigned());
        let mut flags: Vec<u64> = NAMESPACE_FLAGS.map(|flag| u64::from(flag.cast_unsigned()) | thread).to_vec();
        flags.extend([0, thread, tiocsti, tiocsti | 1 << 32, tiocsti + 1, u64::MAX]);
        for number in 0..1000 {
            for flag in &flags {
                for arguments in [[*flag, 0, 0, 0, 0, 0], [0, *flag, 0, 0, 0, 0], [0, 0, *flag, *flag, *flag, *flag]] {
                    let (is, n_steps) = answer(&program, OURS, number, arguments);
                    assert_eq!(is, expected(verdicts.get(&number), arguments), "call {number}, {arguments:?}");
                    assert!(n_steps < 24, "call {number}: {n_steps}");
                }
            }
        }
    }

    #[test]
    fn other_architectures_and_conventions_get_nowhere() {
        let program = program(OURS, &verdicts());
        assert_eq!(answer(&program, OURS + 1, 0, [0; 6]).0, libc::SECCOMP_RET_KILL_PROCESS);
        let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        for number in [FIRST_FOREIGN, u32::MAX] {
            assert_eq!(answer(&program, OURS, number, [0; 6]).0, absent);
        }
    }

    #[test]
    fn any_number_of_calls_has_its_verdicts() {
        for n in [0, 1, 2, 3, 700] {
            let verdicts: BTreeMap<u32, Verdict> = (0..n).map(|call| (3 * call, Verdict::Deny)).collect();
            let program = program(OURS, &verdicts);
            for number in 0..3 * n + 2 {
                let is = answer(&program, OURS, number, [0; 6]).0;
                assert_eq!(is, expected(verdicts.get(&number), [0; 6]), "call {number} of {n}");
            }
        }
    }

    #[test]
    fn the_filter_is_what_bubblewrap_takes() {
        let filters = filters();
        assert_eq!(filters.len(), crate::wire::MAX_FILTERS);
        assert!(filters.iter().all(|filter| filter.len() % 8 == 0 && !filter.is_empty()));
    }
}
