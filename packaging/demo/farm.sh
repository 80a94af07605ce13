# Functions of the demo: a coordinator and agents as processes of their own, in network namespaces as root, else on loopback ports.
# Sourced by `demo` and the benchmarks, which set $work.

pids=()
namespaces=()
netns=
[ "$(id -u)" -eq 0 ] && ip netns list >/dev/null 2>&1 && netns="bee$$"

# One bridge in a namespace of its own joins the others, so that the host's network is left alone.
farm_network() {
    if [ -z "$netns" ]; then
        echo "(not root: all on loopback ports)"
        return
    fi
    if ! ip netns add "$netns-net" 2>/dev/null; then
        netns=
        echo "(no network namespaces here: all on loopback ports)"
        return
    fi
    namespaces+=("$netns-net")
    ip -n "$netns-net" link add bridge0 type bridge
    ip -n "$netns-net" link set bridge0 up
    join_network client 10.77.0.10
}

join_network() { # name, address
    local space="$netns-$1"
    ip netns add "$space"
    namespaces+=("$space")
    ip -n "$netns-net" link add "port-$1" type veth peer name eth0 netns "$space"
    ip -n "$netns-net" link set "port-$1" master bridge0 up
    ip -n "$space" addr add "$2/24" dev eth0
    ip -n "$space" link set eth0 up
    ip -n "$space" link set lo up
}

# What else makes a process one of that machine's. Nothing in the demo; the benchmark counts by it.
join_machine() { :; } # name

in_space() { # name, command...
    (start_in_space "$@")
}
# Becomes the command, so that the process id of a background job is the command's own.
start_in_space() { # name, command...
    local name=$1
    shift
    join_machine "$name"
    if [ -n "$netns" ]; then exec ip netns exec "$netns-$name" "$@"; else exec "$@"; fi
}

client_env() {
    export BUILDBEE_SOCKET="$work/client/daemon.sock" BUILDBEE_STATE_DIR="$work/client/state"
    export BUILDBEE_CACHE_DIR="$work/client/cache" BUILDBEE_LOCAL_SLOTS=0 BUILDBEE_RACING=off BUILDBEE_MDNS=off
}
in_client() {
    # `ip netns exec` gives the client a mount namespace of its own each time; the daemon must share the wrapper's.
    if [ -n "$netns" ]; then nsenter --net="/run/netns/$netns-client" "$@"; else "$@"; fi
}

wait_for() { # file
    local n=0
    until [ -s "$1" ]; do
        n=$((n + 1))
        [ "$n" -lt 200 ] || { echo "demo: $1 did not appear" >&2; cat "$work"/*.err >&2; exit 1; }
        sleep 0.05
    done
}

farm_up() { # number of agents
    mkdir -p "$work/client"
    chmod 700 "$work/client"
    client_env
    local address=127.0.0.1:0
    if [ -n "$netns" ]; then
        join_network coord 10.77.0.1
        address=10.77.0.1:7470
    fi
    start_in_space coord buildbee-coordinator serve --listen "$address" --state-dir "$work/coordinator" --no-mdns \
        --ready-file "$work/coordinator.ready" 2>"$work/coordinator.err" &
    pids+=($!)
    wait_for "$work/coordinator.ready"
    coordinator=$(grep -o '"addresses":\s*\["[^"]*"' "$work/coordinator.ready" | grep -oE '[0-9.]+:[0-9]+')
    local n
    for n in $(seq "$1"); do agent_up "$n"; done
    ticket=$(buildbee-coordinator invite --role client --address "$coordinator" --state-dir "$work/coordinator" 2>/dev/null)
    in_client buildbee join "$ticket" --name laptop
    farm_connected "$1"
}

# The agents are there when the client's daemon sees them connected.
farm_connected() { # number of agents
    local tries=0
    until [ "$(in_client buildbee status --json | tr -d ' \n' | grep -o '"connected":true' | wc -l)" -gt "$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "demo: the agents did not come up" >&2; cat "$work"/*.err >&2; exit 1; }
        sleep 0.1
    done
}

agent_up() { # number
    local address=127.0.0.1:0 ticket
    if [ -n "$netns" ]; then
        join_network "desk$1" "10.77.0.$((100 + $1))"
        address="10.77.0.$((100 + $1)):7471"
    fi
    ticket=$(buildbee-coordinator invite --role agent --address "$coordinator" --state-dir "$work/coordinator" 2>/dev/null)
    in_space "desk$1" buildbee-agent join "$ticket" --name "desk$1" --state-dir "$work/desk$1"
    start_in_space "desk$1" buildbee-agent serve --listen "$address" --state-dir "$work/desk$1" --mode dedicated --slots "${slots_per_desk:-2}" --no-mdns \
        --ready-file "$work/desk$1.ready" 2>"$work/desk$1.err" &
    pids+=($!)
    eval "agent_pid_$1=$!"
    wait_for "$work/desk$1.ready"
}

agent_kill() { # number
    local pid
    eval "pid=\$agent_pid_$1"
    kill -9 "$pid" 2>/dev/null || true
    echo "(desk$1 killed)"
}

# Empties every cache: the client's by its own command, the agents' by starting them anew with empty stores.
farm_forget() {
    in_client buildbee cache clear >/dev/null
    local n pid
    for n in 1 2; do
        eval "pid=\$agent_pid_$n"
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        rm -rf "$work/desk$n/store" "$work/desk$n/toolchains" "$work/desk$n.ready"
        local address
        address=127.0.0.1:0
        [ -z "$netns" ] || address="10.77.0.$((100 + n)):7471"
        start_in_space "desk$n" buildbee-agent serve --listen "$address" --state-dir "$work/desk$n" --mode dedicated --slots "${slots_per_desk:-2}" --no-mdns \
            --ready-file "$work/desk$n.ready" 2>>"$work/desk$n.err" &
        pids+=($!)
        eval "agent_pid_$n=$!"
        wait_for "$work/desk$n.ready"
    done
    farm_connected 2
}

attach_daemon() { # file for what it starts
    local pid
    pid=$(in_client buildbee status --json | tr -d ' \n' | grep -o '"pid":[0-9]*' | head -1 | cut -d: -f2)
    strace -f -qq -e trace=execve -e signal=none -o "$1" -p "$pid" 2>/dev/null &
    tracer=$!
    sleep 0.5
}
detach_daemon() {
    kill "$tracer" 2>/dev/null || true
    wait "$tracer" 2>/dev/null || true
}

farm_down() {
    [ -z "${BUILDBEE_SOCKET:-}" ] || in_client buildbee stop >/dev/null 2>&1 || true
    local pid space
    for pid in "${pids[@]:-}"; do [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]:-}"; do [ -z "$pid" ] || wait "$pid" 2>/dev/null || true; done
    for space in "${namespaces[@]:-}"; do [ -z "$space" ] || ip netns del "$space" 2>/dev/null || true; done
}
