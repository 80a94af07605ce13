# Functions of the benchmark: servers of distcc and icecc in the demo's network namespaces, two slots on each of two machines as the agents
# have. Each adds itself to $remote_tools once it works, or says why it is absent. Sourced by `c` after the demo's `farm.sh`.

distcc_up() {
    if ! have distcc || ! have distccd; then absent distcc "not installed"; return; fi
    local tool=distcc n
    # As root it becomes another user, who needs a folder for temporary files.
    mkdir -p "$work/distcc" "$work/distccd"
    chmod 1777 "$work/distccd"
    export DISTCC_DIR="$work/distcc" DISTCC_FALLBACK=0
    distcc_hosts="" pump_hosts=""
    for n in 1 2; do
        DISTCCD_TCP_INSECURE=1 TMPDIR="$work/distccd" start_in_space "desk$n" distccd --no-detach --daemon --enable-tcp-insecure \
            --user nobody --listen "10.77.0.$((100 + n))" --port 3632 --allow 10.77.0.0/24 --jobs 2 \
            --log-file "$work/distccd/$n.log" --log-level error &
        peers+=($!)
        distcc_hosts+="10.77.0.$((100 + n)):3632/2 "
        pump_hosts+="10.77.0.$((100 + n)):3632/2,cpp,lzo "
    done
    sleep 1
    if works distcc "distcc gcc"; then remote_tools+=(distcc); fi
}

# Pump mode has the same servers, and one on the client that scans includes. Debian 12's fails at each file, says so on standard error, and
# becomes ordinary distcc: that would be no measurement of it.
pump_up() {
    if ! have distcc-pump; then absent "distcc pump" "not installed"; return; fi
    [[ " ${remote_tools[*]} " == *" distcc "* ]] || return
    local tool=distcc variables
    variables=$(join_machine client && DISTCC_HOSTS=$pump_hosts in_client distcc-pump --startup 2>/dev/null)
    include_server_port=$(sed -n "s/^export INCLUDE_SERVER_PORT='\(.*\)'/\1/p" <<<"$variables")
    include_server_pid=$(sed -n "s/^export INCLUDE_SERVER_PID='\(.*\)'/\1/p" <<<"$variables")
    [ -n "$include_server_port" ] || { absent "distcc pump" "its include server does not start"; return; }
    peers+=("$include_server_pid")
    works pump "distcc gcc" || return
    if grep -qE 'gave up|preprocessing locally|Traceback' "$work/works.log"; then
        absent "distcc pump" "its include server fails at every file, and each becomes a plain distcc job ($(distcc --version | head -n 1))"
    else
        remote_tools+=(pump)
    fi
}

# Each daemon gets an own /run/icecc, for they would share one socket, and is shown an idle /proc/stat: its servers take no job while
# anything else runs on their machine, and here that is everything else that is measured.
icecc_up() {
    if ! have icecc || ! have iceccd; then absent icecc "not installed"; return; fi
    local tool=icecc n
    mkdir -p -m 1777 "$work/icecc"
    awk '/^cpu/ { print $1, 0, 0, 0, 100000, 0, 0, 0, 0, 0, 0; next } { print }' /proc/stat >"$work/icecc/stat"
    in_icecc_space coord icecc-scheduler -n bench -l "$work/icecc/scheduler.log"
    sleep 0.5
    for n in 1 2; do
        in_icecc_space "desk$n" iceccd -s 10.77.0.1 -n bench -m 2 -N "desk$n" -b "$work/icecc/desk$n" -l "$work/icecc/desk$n.log"
    done
    # One that takes no jobs listens on a socket alone.
    ICECC_TEST_SOCKET="$work/icecc/socket" in_icecc_space client iceccd -s 10.77.0.1 -n bench --no-remote -N client \
        -b "$work/icecc/client" -l "$work/icecc/client.log"
    sleep 8
    if works icecc "icecc gcc"; then remote_tools+=(icecc); fi
}
in_icecc_space() { # name, command...
    local space=$1
    shift
    start_in_space "$space" unshare --mount sh -c 'mkdir -p /run/icecc && mount -t tmpfs none /run/icecc
        mount --bind "$0" /proc/stat && PATH=$PATH:/usr/sbin exec "$@"' "$work/icecc/stat" "$@" &
    peers+=($!)
}

# Compiles something; what was said is in $work/works.log.
works() { # tool, compiler words
    # shellcheck disable=SC2086
    if as "$1" timeout 300 $2 -O2 -c "$work/src/stdio.c" -o "$work/works.o" >"$work/works.log" 2>&1; then return 0; fi
    absent "$(label_of "$1")" "it does not compile here: $(tail -n 1 "$work/works.log")"
    return 1
}

peers_down() {
    local pid
    for pid in "${peers[@]:-}"; do [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; done
    for pid in "${peers[@]:-}"; do [ -z "$pid" ] || wait "$pid" 2>/dev/null || true; done
    peers=()
}
