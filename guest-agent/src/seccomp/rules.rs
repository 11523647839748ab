//! Reads the OCI section into rules with the kernel's return values.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use super::SeccompError;

// linux/seccomp.h: the upper half of a filter's return value.
pub(super) const KILL_THREAD: u32 = libc::SECCOMP_RET_KILL_THREAD;
const NOT_PERMITTED: u32 = libc::EPERM.cast_unsigned();
const MAX_ERRNO: u32 = 4095;

/// What a filter shall do.
#[derive(Debug)]
pub(super) struct Policy<'a> {
    pub default: u32,
    /// What a call returns that is newer than the section, if not the default.
    pub newer: Option<u32>,
    pub i386: bool,
    pub x32: bool,
    pub flags: libc::c_ulong,
    pub entries: Vec<Entry<'a>>,
}

/// One entry of `syscalls`. No conditions: it always matches.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub names: &'a [String],
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// All must hold.
    pub conditions: Vec<Condition>,
    pub verdict: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub argument: u8,
    pub comparison: Comparison,
    pub value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    MaskedEq { mask: u64 },
}

impl<'a> Policy<'a> {
    pub fn read(seccomp: &'a LinuxSeccomp) -> Result<Self, SeccompError> {
        let notify_only = [
            ("listenerPath", seccomp.listener_path().as_ref().is_some_and(|p| !p.as_os_str().is_empty())),
            ("listenerMetadata", seccomp.listener_metadata().as_ref().is_some_and(|m| !m.is_empty())),
        ];
        if let Some((option, _)) = notify_only.iter().find(|(_, given)| *given) {
            return Err(SeccompError::Unsupported { option: (*option).to_owned(), reason: NO_LISTENER });
        }
        let default = verdict(seccomp.default_action(), seccomp.default_errno_ret())?;
        let permissive = matches!(
            seccomp.default_action(),
            LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
        );
        let architectures = seccomp.architectures().as_deref().unwrap_or_default();
        Ok(Self {
            default,
            newer: (!permissive).then_some(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
            i386: architectures.contains(&Arch::ScmpArchX86),
            x32: architectures.contains(&Arch::ScmpArchX32),
            flags: flags(seccomp.flags().as_deref())?,
            entries: seccomp.syscalls().iter().flatten().map(Entry::read).collect::<Result<_, _>>()?,
        })
    }
}

impl<'a> Entry<'a> {
    fn read(syscall: &'a LinuxSyscall) -> Result<Self, SeccompError> {
        let verdict = verdict(syscall.action(), syscall.errno_ret())?;
        let conditions = syscall.args().iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
        let repeated = conditions.iter().enumerate().any(|(index, condition)| {
            conditions.iter().take(index).any(|earlier| earlier.argument == condition.argument)
        });
        let rules = if repeated {
            conditions.into_iter().map(|condition| Rule { conditions: vec![condition], verdict }).collect()
        } else {
            vec![Rule { conditions, verdict }]
        };
        Ok(Self { names: syscall.names(), rules })
    }
}

const NO_LISTENER: &str = "there is no listener in the machine that could answer";

fn verdict(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    let code = match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActLog => libc::SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
        LinuxSeccompAction::ScmpActErrno => return with_errno(libc::SECCOMP_RET_ERRNO, errno),
        LinuxSeccompAction::ScmpActTrace => return with_errno(libc::SECCOMP_RET_TRACE, errno),
        LinuxSeccompAction::ScmpActNotify => {
            return Err(SeccompError::Unsupported { option: action.to_string(), reason: NO_LISTENER });
        }
    };
    // The specification: "the runtime MUST print an error and fail".
    if errno.is_some() {
        return Err(SeccompError::ErrnoNotTaken { action: action.to_string() });
    }
    Ok(code)
}

fn with_errno(code: u32, errno: Option<u32>) -> Result<u32, SeccompError> {
    match errno.unwrap_or(NOT_PERMITTED) {
        value @ ..=MAX_ERRNO => Ok(code | value),
        value => Err(SeccompError::ErrnoRange { value }),
    }
}

fn flags(flags: Option<&[LinuxSeccompFilterFlag]>) -> Result<libc::c_ulong, SeccompError> {
    let flags = flags.unwrap_or(&[LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow]);
    flags.iter().try_fold(0, |all, flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(all | libc::SECCOMP_FILTER_FLAG_TSYNC),
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(all | libc::SECCOMP_FILTER_FLAG_LOG),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(all | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => Err(SeccompError::Unsupported {
            option: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".to_owned(),
            reason: NO_LISTENER,
        }),
    })
}

fn condition(argument: &LinuxSeccompArg) -> Result<Condition, SeccompError> {
    let index = argument.index();
    let number = u8::try_from(index).ok().filter(|i| *i < 6).ok_or(SeccompError::ArgumentIndex { index })?;
    let (comparison, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (Comparison::Ne, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (Comparison::Lt, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (Comparison::Le, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (Comparison::Eq, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (Comparison::Ge, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (Comparison::Gt, argument.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (Comparison::MaskedEq { mask: argument.value() }, argument.value_two().unwrap_or(0))
        }
    };
    Ok(Condition { argument: number, comparison, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        let seccomp: LinuxSeccomp = serde_json::from_str(json).expect("parses");
        Policy::read(&seccomp).expect_err("refuses").to_string()
    }

    fn flags_of(json: &str) -> libc::c_ulong {
        let seccomp: LinuxSeccomp = serde_json::from_str(json).expect("parses");
        Policy::read(&seccomp).expect("reads").flags
    }

    #[test]
    fn what_needs_a_listener_is_refused() {
        for json in [
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
        ] {
            assert!(error(json).ends_with("there is no listener in the machine that could answer"), "{json}");
        }
    }

    #[test]
    fn errnos_are_checked() {
        assert!(error(r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#).contains("does not take an errno"));
        assert!(error(r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#).contains("4096"));
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW",
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","errnoRet":1}]}"#;
        assert!(error(json).contains("does not take an errno"));
    }

    #[test]
    fn arguments_are_0_to_5() {
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
            "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert!(error(json).contains("argument 6"));
    }

    #[test]
    fn flags_are_passed_on() {
        let json = |flags: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW"{flags}}}"#);
        assert_eq!(flags_of(&json("")), libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
        assert_eq!(flags_of(&json(r#","flags":[]"#)), 0);
        assert_eq!(flags_of(&json(r#","flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_LOG"]"#)), 3);
    }
}
