# Functions of the benchmark: distcc and icecc in the demo's network namespaces. Sourced by `run` after the demo's `farm.sh`.

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

# Two servers that take two jobs each, as the agents do.
distcc_up() {
    # As root it becomes another user, who needs a folder for temporary files.
    local user
    user=$(id -un)
    [ "$user" != root ] || user=nobody
    mkdir -p "$work/distcc" "$work/distccd"
    chmod 755 "$work"
    chmod 1777 "$work/distccd"
    export DISTCC_DIR="$work/distcc" DISTCC_FALLBACK=0 DISTCC_HOSTS=
    local n address port
    for n in 1 2; do
        if [ -n "$netns" ]; then address="10.77.0.$((100 + n))" port=3632; else address=127.0.0.1 port=$((36320 + n)); fi
        DISTCCD_TCP_INSECURE=1 TMPDIR="$work/distccd" start_in_space "desk$n" distccd --no-detach --daemon --enable-tcp-insecure \
            --user "$user" --listen "$address" --port "$port" --allow 10.77.0.0/24 --allow 127.0.0.0/8 --jobs 2 \
            --log-file "$work/distccd/$n.log" --log-level error &
        peers+=($!)
        DISTCC_HOSTS+="$address:$port/2 "
    done
    sleep 1
}

# Each daemon gets an own /run/icecc, for they would share one socket, and is shown an idle /proc/stat: its servers take no job while
# anything else runs on their machine, and here that is everything else that is measured.
icecc_up() {
    # They become the user icecc before they open their logs.
    chmod 755 "$work"
    mkdir -p -m 1777 "$work/icecc"
    awk '/^cpu/ { $5 = 100000; print $1, 0, 0, 0, $5, 0, 0, 0, 0, 0, 0; next } { print }' /proc/stat >"$work/icecc/stat"
    in_icecc_space coord icecc-scheduler -n bench -l "$work/icecc/scheduler.log"
    sleep 0.5
    in_icecc_space desk1 iceccd -s 10.77.0.1 -n bench -m 2 -N desk1 -b "$work/icecc/desk1" -l "$work/icecc/desk1.log"
    in_icecc_space desk2 iceccd -s 10.77.0.1 -n bench -m 2 -N desk2 -b "$work/icecc/desk2" -l "$work/icecc/desk2.log"
    # One that takes no jobs listens on a socket alone.
    export ICECC_TEST_SOCKET="$work/icecc/socket"
    in_icecc_space client iceccd -s 10.77.0.1 -n bench --no-remote -N client -b "$work/icecc/client" -l "$work/icecc/client.log"
    sleep 8
}
in_icecc_space() { # name, command...
    local space=$1
    shift
    start_in_space "$space" unshare --mount sh -c 'mkdir -p /run/icecc && mount -t tmpfs none /run/icecc
        mount --bind "$0" /proc/stat && PATH=$PATH:/usr/sbin exec "$@"' "$work/icecc/stat" "$@" &
    peers+=($!)
}

peers_down() {
    local pid
    for pid in "${peers[@]:-}"; do [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; done
    for pid in "${peers[@]:-}"; do [ -z "$pid" ] || wait "$pid" 2>/dev/null || true; done
    peers=()
}
