# Many agents that fetch the same large toolchain from one holder at once, on slow links: how long the last takes, and what the holder sends.
#
# The holder is the client, and the toolchain is gcc's with noise behind its programs, in which zstd finds nothing. Each machine's link is
# shaped both ways.
section_swarm() {
    local n_agents=${BUILDBEE_SWARM_AGENTS:-8} n_mb=${BUILDBEE_SWARM_MB:-300} rate=${BUILDBEE_SWARM_MBIT:-200} slots_per_desk=1
    local one last sent size
    swarm_compiler "$n_mb"
    swarm_run 1
    one=$took_ms
    swarm_run "$n_agents"
    last=$took_ms sent=$holder_sent size=$n_bytes
    section "$n_agents agents fetch a toolchain of $(megabytes "$size") MB from one holder, links of $rate Mbit/s"
    columns "" "ms" "holder sent MB" "to its size"
    columns "one agent" "$one" "$(megabytes "$one_sent")" "$(ratio "$one_sent" "$size")"
    columns "the last of $n_agents" "$last" "$(megabytes "$sent")" "$(ratio "$sent" "$size")"
    note "each of them: $each_ms ms; sent MB: $each_sent"
    wanted "the last, to one alone" "$(ratio "$last" "$one")" 2.5
    wanted "sent by the holder, to the size" "$(ratio "$sent" "$size")" 2.5
}

# A gcc that finds its own parts beside itself.
swarm_compiler() { # megabytes
    local from=/usr/lib/gcc/x86_64-linux-gnu/12 to="$work/gcc" part
    mkdir -p "$to/bin" "$to/lib/gcc/x86_64-linux-gnu/12"
    cp /usr/bin/x86_64-linux-gnu-gcc-12 "$to/bin/gcc-12"
    cp -r "$from/include" "$from/cc1" "$from/collect2" "$to/lib/gcc/x86_64-linux-gnu/12"
    # Three large files and 64 small ones have a sixth each and the rest.
    for part in bin/gcc-12 lib/gcc/x86_64-linux-gnu/12/cc1 lib/gcc/x86_64-linux-gnu/12/collect2; do
        head -c $(($1 * 1000000 / 10 * 3)) /dev/urandom >>"$to/$part"
    done
    for part in $(seq 64); do
        head -c $(($1 * 1000000 / 640)) /dev/urandom >"$to/lib/gcc/x86_64-linux-gnu/12/include/noise$part.h"
    done
}

swarm_shape() { # machine
    ip netns exec "$netns-$1" tc qdisc add dev eth0 root tbf rate "${rate}mbit" burst 256kb latency 50ms
    ip netns exec "$netns-net" tc qdisc add dev "port-$1" root tbf rate "${rate}mbit" burst 256kb latency 50ms
}

# Sets $took_ms of the last, $each_ms, $holder_sent, $each_sent and $n_bytes.
swarm_run() { # number of agents
    local compiler="$work/gcc/bin/gcc-12" before n
    new_farm "$1"
    for n in client $(seq -f 'desk%g' "$1"); do swarm_shape "$n"; done
    before=$(bytes_out client)
    in_client buildbee toolchain warm --json "$compiler" >"$work/warmed" || { cat "$work/warmed" >&2; exit 1; }
    holder_sent=$(($(bytes_out client) - before))
    each_ms=$(tr -d ' \n' <"$work/warmed" | grep -o '"took_ms":[0-9]*' | cut -d: -f2 | sort -n | paste -sd' ')
    took_ms=${each_ms##* }
    each_sent=$(for n in $(seq "$1"); do megabytes "$(bytes_out "desk$n")"; echo; done | sort -n | paste -sd' ')
    n_bytes=$(in_client buildbee toolchain list --json | tr -d ' \n' | grep -o '"bytes":[0-9]*' | head -n 1 | cut -d: -f2)
    [ "$1" -gt 1 ] || one_sent=$holder_sent
    end_farm
}
