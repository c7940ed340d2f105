//! The default seccomp profile: what an unprivileged container may call.
//!
//! An allow list; everything else gets EPERM (ENOSYS for clone3, so that libc falls back to
//! clone, whose flags can be looked at). Some rules hold only with a capability.

use serde_json::{Value, json};

use crate::container::ContainerError;

/// Allowed without condition.
const ALLOWED: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir \
chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range \
creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 \
fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 \
fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 \
futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 \
geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp \
getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday \
getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch \
io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set \
io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self \
lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek \
lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create \
memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect \
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall \
munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open \
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl \
pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev \
pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg \
remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq \
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr \
sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler \
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid \
setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid \
setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit \
set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr \
setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask \
sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink \
symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete \
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate \
truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 \
utimes vfork vmsplice wait4 waitid waitpid write writev process_vm_readv process_vm_writev ptrace";

/// Allowed on one architecture only.
const ON_X86: &str = "arch_prctl modify_ldt";
const ON_ARM: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// Capability, then what it allows.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open \
quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Namespace flags that clone may not carry without CAP_SYS_ADMIN.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Values of `personality` that are harmless.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Address family of virtual machine sockets, which reach out of the network namespace.
const AF_VSOCK: u64 = 40;

/// The profile for a container with these capabilities, as the runtime specification has it.
pub(crate) fn default_profile(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|own| own == name);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let allow = |names: Vec<String>| json!({"names": names, "action": "SCMP_ACT_ALLOW"});
    let argument = |name: &str, index: u32, op: &str, value: u64, value_two: u64| {
        json!({"names": [name], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": index, "value": value, "valueTwo": value_two, "op": op}]})
    };
    let mut rules = vec![allow(words(ALLOWED)), argument("socket", 0, "SCMP_CMP_NE", AF_VSOCK, 0)];
    for value in PERSONALITIES {
        rules.push(argument("personality", 0, "SCMP_CMP_EQ", value, 0));
    }
    let architectures: Value = match std::env::consts::ARCH {
        "aarch64" => {
            rules.push(allow(words(ON_ARM)));
            json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
        }
        _ => {
            rules.push(allow(words(ON_X86)));
            json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
        }
    };
    for (capability, names) in WITH_CAPABILITY {
        if has(capability) {
            rules.push(allow(words(names)));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        rules.push(argument("clone", 0, "SCMP_CMP_MASKED_EQ", CLONE_NAMESPACES, 0));
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures,
        "syscalls": rules,
    })
}

/// A profile given by the client (its text) or the daemon (a file), in docker's format: rules may
/// have `includes` and `excludes`, and architectures a map.
pub(crate) fn custom_profile(text: &str, capabilities: &[String]) -> Result<Value, ContainerError> {
    let invalid = |reason: String| {
        ContainerError::Invalid(format!("Decoding seccomp profile failed: {reason}"))
    };
    let profile: Value = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
    let Value::Object(mut profile) = profile else {
        return Err(invalid("not an object".to_owned()));
    };
    if let Some(Value::Array(maps)) = profile.remove("archMap") {
        let own = if std::env::consts::ARCH == "aarch64" {
            "SCMP_ARCH_AARCH64"
        } else {
            "SCMP_ARCH_X86_64"
        };
        for map in maps {
            if map["architecture"] == own {
                let mut list = vec![json!(own)];
                list.extend(map["subArchitectures"].as_array().cloned().unwrap_or_default());
                profile.insert("architectures".to_owned(), Value::Array(list));
            }
        }
    }
    let holds = |condition: &Value, any: bool| -> bool {
        let caps = condition["caps"].as_array().into_iter().flatten();
        let mut caps =
            caps.filter_map(Value::as_str).map(|cap| capabilities.iter().any(|own| own == cap));
        let own_arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
        let arches: Vec<&str> = condition["arches"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if any {
            caps.any(|has| has) || arches.contains(&own_arch)
        } else {
            caps.all(|has| has) && (arches.is_empty() || arches.contains(&own_arch))
        }
    };
    let mut rules = Vec::new();
    for rule in profile
        .remove("syscalls")
        .and_then(|rules| match rules {
            Value::Array(rules) => Some(rules),
            _ => None,
        })
        .unwrap_or_default()
    {
        let Value::Object(mut rule) = rule else { continue };
        let includes = rule.remove("includes").unwrap_or_default();
        let excludes = rule.remove("excludes").unwrap_or_default();
        rule.remove("comment");
        if let Some(name) = rule.remove("name") {
            rule.insert("names".to_owned(), json!([name]));
        }
        rule.retain(|_, value| !value.is_null());
        if holds(&includes, false) && !holds(&excludes, true) {
            rules.push(Value::Object(rule));
        }
    }
    profile.insert("syscalls".to_owned(), Value::Array(rules));
    profile.retain(|_, value| !value.is_null());
    Ok(Value::Object(profile))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn capabilities_open_their_calls() {
        let plain = default_profile(&[]).to_string();
        assert!(!plain.contains("\"mount\"") && plain.contains("SCMP_CMP_MASKED_EQ"));
        let admin = default_profile(&["CAP_SYS_ADMIN".to_owned()]).to_string();
        assert!(admin.contains("\"mount\"") && !admin.contains("SCMP_CMP_MASKED_EQ"));
    }

    #[test]
    fn conditions_of_a_custom_profile_are_resolved() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_KILL"]}},
            {"names":["b"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_KILL"]}}]}"#;
        let with = custom_profile(text, &["CAP_KILL".to_owned()]).unwrap();
        assert_eq!(with["syscalls"][0]["names"][0], "a");
        let without = custom_profile(text, &[]).unwrap();
        assert_eq!(without["syscalls"][0]["names"][0], "b");
        assert!(custom_profile("x", &[]).is_err());
    }

    const PROFILE: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64",
"subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1}],
"includes":{"caps":["CAP_SYS_ADMIN"],"arches":["amd64"]},"excludes":{"minKernel":"4.8"}},{"name":"write","action":"SCMP_ACT_LOG"}]}"#;
    const WORDS: &[&str] = &["null", "[]", "{}", "1", "-1", ",", "\"", "\"caps\":[],", "1e99"];

    proptest! {
        #[test]
        fn a_broken_profile_is_refused_or_has_rules_of_the_runtime(
            edits in proptest::collection::vec(
                (0..PROFILE.len(), 0_usize..9, 0..WORDS.len()),
                0..5,
            ),
            admin: bool,
        ) {
            let mut text = PROFILE.as_bytes().to_vec();
            for (at, cut, word) in edits {
                let at = at.min(text.len());
                text.splice(at..(at + cut).min(text.len()), WORDS[word].bytes());
            }
            let text = String::from_utf8(text).unwrap();
            let capabilities: &[String] = if admin { &["CAP_SYS_ADMIN".to_owned()] } else { &[] };
            if let Ok(profile) = custom_profile(&text, capabilities) {
                prop_assert!(profile.is_object() && profile.get("archMap").is_none());
                for rule in profile["syscalls"].as_array().into_iter().flatten() {
                    prop_assert!(rule.get("includes").is_none() && rule.get("excludes").is_none());
                }
                prop_assert!(profile.to_string().len() <= 2 * text.len() + 200);
            }
        }
    }
}
