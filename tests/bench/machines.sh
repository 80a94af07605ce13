# Functions of the benchmark: what each machine's daemons use, by control groups, and what the client's link carries. Sourced by `c`.
#
# A group is named TOOL.MACHINE. Commands of the client are not in any: `sample` counts those itself, so that its own work stays out.

machines_up() {
    if [ -f /sys/fs/cgroup/cpuacct/cgroup.procs ]; then
        groups="/sys/fs/cgroup/cpuacct/buildbee-bench.$$"
    elif [ -f /sys/fs/cgroup/cgroup.procs ]; then
        groups="/sys/fs/cgroup/buildbee-bench.$$"
    else
        die "there are no control groups at /sys/fs/cgroup to count with"
    fi
    mkdir "$groups" 2>/dev/null || die "control groups need root"
}
machines_down() {
    [ -n "${groups:-}" ] || return 0
    local tries
    # Empty once the last process in it is reaped.
    for tries in 1 2 3 4 5; do
        rmdir "$groups"/*/ "$groups" 2>/dev/null
        [ -d "$groups" ] || return 0
        sleep 0.3
    done
}

# Puts this shell, or the process given, on a machine. `start_in_space` of the demo calls it for whatever it starts.
join_machine() { # machine, process id or nothing
    mkdir -p "$groups/$tool.$1"
    echo "${2:-$BASHPID}" >"$groups/$tool.$1/cgroup.procs"
}

# Processor time of all groups that match, in microseconds.
used_us() { # pattern
    local group sum=0 n
    for group in "$groups"/$1/; do
        if [ -f "$group/cpuacct.usage" ]; then
            read -r n <"$group/cpuacct.usage"
            n=$((n / 1000))
        elif [ -f "$group/cpu.stat" ]; then
            n=$(awk '$1 == "usage_usec" { print $2 }' "$group/cpu.stat")
        else
            continue
        fi
        sum=$((sum + n))
    done
    echo "$sum"
}

# Bytes that the client's interface has sent and received.
link_bytes() {
    in_client cat /proc/net/dev | awk '/eth0:/ { print $10, $2 }'
}
