# The parts of the benchmark, one function a table. Sourced by `run`.

fetch_sources() {
    mkdir -p "$work/fetch/src" "$work/src"
    cat >"$work/fetch/Cargo.toml" <<'TOML'
[package]
name = "fetch"
version = "0.0.0"
edition = "2021"
[dependencies]
zstd-sys = "=2.0.15"
TOML
    : >"$work/fetch/src/lib.rs"
    (cd "$work/fetch" && cargo vendor --quiet vendor >/dev/null) || return 1
    cp -r "$work/fetch/vendor/zstd-sys/zstd/lib" "$work/zstd" || return 1
    echo 'int answer(void) { return 42; }' >"$work/src/tiny.c"
    printf '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n' >"$work/src/stdio.c"
    local n
    for n in $(seq "$jobs"); do echo "int answer$n(void) { return $n; }" >"$work/src/job$n.c"; done
    # Caches trust no file that was written a moment ago.
    sleep 1.2
}

# A daemon without a farm, beside nothing that the user has.
alone() {
    BUILDBEE_SOCKET="$work/alone/daemon.sock" BUILDBEE_STATE_DIR="$work/alone/state" BUILDBEE_CACHE_DIR="$work/alone/cache" \
        BUILDBEE_MDNS=off "$@"
}
alone_up() {
    mkdir -p -m 700 "$work/alone"
    alone buildbee status >/dev/null || die "the daemon does not start"
}
daemon_pid() { # command prefix...
    "$@" buildbee status --json | tr -d ' \n' | grep -o '"pid":[0-9]*' | head -1 | cut -d: -f2
}
count() { # key, command prefix...
    local key=$1
    shift
    "$@" buildbee stats --json | tr -d ' \n' | grep -o "\"$key\":[0-9]*" | head -1 | cut -d: -f2
}

row_hit() { # label, samples, total processor microseconds
    columns "$1" "$(ms "$(wall "$2")")" "$(ms "$(cpu "$2")")" "$(ms "$3")" "$(ratio "$3" "$reference")"
}

# One file again and again: the floor (a program that does nothing), the compiler, and hits.
measure_hits() { # name of the source
    local source="$work/src/$1.c" object="$work/$1.o" round pid before daemon=0 hits
    local compile=(gcc -O2 -c "$source" -o "$object")
    forget true gcc ccache buildbee
    have ccache && ccache "${compile[@]}"
    alone buildbee "${compile[@]}"
    alone buildbee "${compile[@]}"
    pid=$(daemon_pid alone)
    hits=$(count cached alone)
    for round in $(seq "$rounds"); do
        sampled true "$per_round" /bin/true
        sampled gcc -r "$object" 2 "${compile[@]}"
        have ccache && sampled ccache -r "$object" "$per_round" ccache "${compile[@]}"
        before=$(own_ticks "$pid")
        alone sampled buildbee -r "$object" "$per_round" buildbee "${compile[@]}"
        daemon=$((daemon + $(own_ticks "$pid") - before))
    done
    daemon=$((daemon * tick_us / (rounds * per_round)))
    hits=$(($(count cached alone) - hits))
    section "cache hit, $1.c, medians of $((rounds * per_round)) runs in $rounds interleaved rounds"
    columns "" "wall ms" "CPU ms" "+daemon ms" "to ccache"
    reference=-
    have ccache && reference=$(cpu ccache)
    row_hit "/bin/true (fork and exec)" true "$(cpu true)"
    row_hit "gcc" gcc "$(cpu gcc)"
    if have ccache; then row_hit "ccache, direct hit" ccache "$(cpu ccache)"; else skip ccache "not installed"; fi
    row_hit "buildbee (wrapper; +daemon)" buildbee "$(($(cpu buildbee) + daemon))"
    [ "$hits" -eq $((rounds * per_round)) ] || echo "  (only $hits of buildbee's runs were hits)"
}

# What bubblewrap itself takes on this machine.
measure_sandbox_floor() {
    forget sandbox
    sampled sandbox "$((jobs * 2))" bwrap --unshare-all --cap-drop ALL --die-with-parent --ro-bind / / --dev /dev --proc /proc \
        --tmpfs /tmp /bin/true
}

# One build of all sources. Wall and processor time of make and everything below it.
build() { # samples, parallel, compiler words, command prefix...
    local name=$1 parallel=$2 words=$3
    shift 3
    rm -rf "$work/zstd/out"
    (cd "$work/zstd" && mkdir -p $(printf 'out/%s ' $folders))
    "$@" sampled "$name" 1 timeout 120 make -s -f "$here/objects.mk" -C "$work/zstd" -j"$parallel" CC="$words" FOLDERS="$folders" \
        >"$work/$name.log" 2>&1 || { sed 's/^/  /' "$work/$name.log" | tail -5; return 1; }
}
# Processor time of make alone, which is taken off everywhere.
build_floor() {
    local n
    forget make
    for n in 1 2 3 4 5; do build make 2 true; done
    make_us=$(cpu make)
}
less_make() { awk -v us="$1" -v make="$make_us" 'BEGIN { print us == "-" ? us : (us > make ? us - make : 0) }'; }

row_build() { # label, samples, processor microseconds besides those of make's tree
    local us
    us=$(($(less_make "$(cpu "$2")") + $3))
    columns "$1" "$(ms "$(wall "$2")")" "$(ms "$us")" "$(ratio "$us" "$plain_us")"
}

# Caches of this machine only: what a miss costs on top of the compiler, and what a rebuild costs.
measure_local_builds() {
    local pid own children n
    build_floor
    forget plain ccache-cold ccache-warm local-cold local-warm
    build plain 2 gcc
    plain_us=$(less_make "$(cpu plain)")
    pid=$(daemon_pid alone)
    own=$(own_ticks "$pid") children=$(children_ticks "$pid")
    build local-cold 2 "buildbee gcc" alone
    own=$((($(own_ticks "$pid") - own) * tick_us)) children=$((($(children_ticks "$pid") - children) * tick_us))
    have ccache && rm -rf "$CCACHE_DIR" && build ccache-cold 2 "ccache gcc"
    sleep 1.2
    section "miss and rebuild with local caches, $(find "$work/zstd/out" -name '*.o' | wc -l) C files of zstd, -O2 -g, make -j2"
    columns "" "wall ms" "CPU ms" "to gcc"
    row_build "gcc" plain 0
    if have ccache; then row_build "ccache, empty cache" ccache-cold 0; else skip ccache "not installed"; fi
    row_build "buildbee, empty cache" local-cold $((own + children))
    columns "  of this the daemon; its children" "" "$(ms "$own"); $(ms "$children")"
    own=$(own_ticks "$pid")
    for n in $(seq "$warm_builds"); do
        have ccache && build ccache-warm 2 "ccache gcc"
        build local-warm 2 "buildbee gcc" alone
    done
    own=$((($(own_ticks "$pid") - own) * tick_us / warm_builds))
    have ccache && row_build "ccache, full cache" ccache-warm 0
    row_build "buildbee, full cache" local-warm "$own"
    columns "  of this the daemon" "" "$(ms "$own")"
    columns "  daemon's resident MiB" "" "$(mib "$(resident_kib "$pid")")"
}

# The farm when nobody does anything.
measure_idle() {
    local names=(coordinator desk1 desk2 daemon) all=() before=() n
    all=("${pids[0]}" "$agent_pid_1" "$agent_pid_2" "$(daemon_pid in_client)")
    for n in 0 1 2 3; do before+=("$(own_ticks "${all[n]}")"); done
    sleep "$idle_s"
    section "idle for $idle_s s: coordinator, two agents, the client's daemon"
    columns "" "resident MiB" "not file's" "% of a core"
    for n in 0 1 2 3; do
        columns "${names[n]}" "$(mib "$(resident_kib "${all[n]}")")" "$(mib "$(anonymous_kib "${all[n]}")")" \
            "$(awk -v t=$((($(own_ticks "${all[n]}") - before[n]) * tick_us)) -v s="$idle_s" 'BEGIN { printf "%.2f", t / s / 10000 }')"
    done
}

each_job() { # samples, command words...
    local name=$1 n
    shift
    for n in $(seq "$jobs"); do sampled "$name" 1 "$@" -O2 -c "$work/src/job$n.c" -o "$work/job$n.o"; done
}

# Many tiny compiles, one after the other: what sending a job away costs.
measure_jobs() {
    local pid own n
    forget job-gcc job-buildbee job-distcc
    pid=$(daemon_pid in_client)
    in_client buildbee gcc -O2 -c "$work/src/tiny.c" -o "$work/tiny.o"
    in_client buildbee stats --zero >/dev/null
    own=$(own_ticks "$pid")
    in_client_too each_job job-buildbee buildbee gcc
    own=$((($(own_ticks "$pid") - own) * tick_us / jobs))
    each_job job-gcc gcc
    section "one tiny compile elsewhere, medians of $jobs different files, one after the other"
    columns "" "wall ms" "client CPU ms" "to gcc"
    columns "gcc, here" "$(ms "$(wall job-gcc)")" "$(ms "$(cpu job-gcc)")"
    n=$(($(cpu job-buildbee) + own))
    columns "buildbee, wrapper and daemon" "$(ms "$(wall job-buildbee)")" "$(ms "$n")" "$(ratio "$n" "$(cpu job-gcc)")"
    n=$(count remote in_client)
    [ "$n" -eq "$jobs" ] || echo "  (only $n of buildbee's ran on an agent)"
    agent_times
    if have distcc; then
        distcc_up
        in_client_too each_job job-distcc distcc gcc 2>"$work/job-distcc.log" || tail -2 "$work/job-distcc.log"
        peers_down
        columns "distcc" "$(ms "$(wall job-distcc)")" "$(ms "$(cpu job-distcc)")" "$(ratio "$(cpu job-distcc)" "$(cpu job-gcc)")"
    else
        skip distcc "not installed"
    fi
    columns "bwrap /bin/true, for comparison" "$(ms "$(wall sandbox)")" "$(ms "$(cpu sandbox)")"
}

# Runs a function so that what it samples runs in the client's namespace.
in_client_too() { sampler_prefix=in_client "$@"; }

# From the agents' logs: how long the sandbox was up, and the whole action.
agent_times() {
    local log="$work/agent-times"
    sed 's/\x1b\[[0-9;]*m//g' "$work"/desk?.err | grep -oE 'wall_ms=[0-9]+ total_ms=[0-9]+' | tail -n "$jobs" |
        sed -E 's/wall_ms=([0-9]+) total_ms=([0-9]+)/\1000 \2000/' >"$log"
    columns "  of this on the agent" "$(ms "$(median_of 2 <"$log")")"
    columns "  of this the sandbox is up" "$(ms "$(median_of 1 <"$log")")"
}

# Bytes that the client's interface has sent, and received.
sent_bytes() { in_client cat /proc/net/dev | awk '/eth0:/ { print $10 }'; }
received_bytes() { in_client cat /proc/net/dev | awk '/eth0:/ { print $2 }'; }

# One build by agents or servers; what the client's side of it costs.
remote_build() { # label, samples, compiler words, process id of a daemon that counts or nothing
    local label=$1 name=$2 words=$3 pid=$4 own=0 children=0 sent=0 received=0 us
    [ -z "$netns" ] || sent=$(sent_bytes) received=$(received_bytes)
    [ -z "$pid" ] || own=$(own_ticks "$pid") children=$(children_ticks "$pid")
    in_client_too build "$name" 4 "$words" || { skip "$label" "the build failed"; return; }
    [ -z "$pid" ] || own=$((($(own_ticks "$pid") - own) * tick_us)) children=$((($(children_ticks "$pid") - children) * tick_us))
    if [ -n "$netns" ]; then
        sent=$(megabytes $(($(sent_bytes) - sent))) received=$(megabytes $(($(received_bytes) - received)))
    else
        sent=- received=-
    fi
    us=$(less_make "$(tail -n 1 "$work/samples/$name" | cut -d' ' -f2)")
    split="wrappers $(ms "$us"), daemon $(ms "$own"), its children $(ms "$children")"
    us=$((us + own + children))
    columns "$label" "$(ms "$(tail -n 1 "$work/samples/$name" | cut -d' ' -f1)")" "$(ms "$us")" "$(ratio "$us" "$plain_us")" \
        "$sent" "$received"
}

measure_remote_builds() {
    local pid
    pid=$(daemon_pid in_client)
    in_client buildbee stats --zero >/dev/null
    section "the same sources elsewhere, make -j4, two agents or servers with two slots each on these cores"
    columns "" "wall ms" "client CPU ms" "to gcc" "sent MB" "received MB"
    row_build "gcc, here, make -j2" plain 0
    remote_build "buildbee, empty caches" remote-cold "buildbee gcc" "$pid"
    echo "    $split; remote $(count remote in_client), local $(count local in_client)"
    in_client buildbee cache clear >/dev/null
    remote_build "buildbee, cached at the agents" remote-kept "buildbee gcc" "$pid"
    echo "    $split; cached $(count cached in_client)"
    remote_build "buildbee, cached here" remote-warm "buildbee gcc" "$pid"
    if have distcc; then
        distcc_up
        remote_build distcc distcc "distcc gcc" ""
        peers_down
    else
        skip distcc "not installed"
    fi
    if ! have icecc || ! have iceccd; then
        skip icecc "not installed"
    elif [ -z "$netns" ] || [ -n "$quick" ]; then
        skip icecc "needs root and time"
    else
        icecc_up
        # The first jobs make the compiler's package and send it to both servers.
        folders=common in_client_too build icecc-first 4 "icecc gcc"
        remote_build icecc icecc "icecc gcc" ""
        peers_down
    fi
}

measure_memory_after() {
    section "resident MiB after these builds"
    columns "coordinator" "$(mib "$(resident_kib "${pids[0]}")")"
    columns "desk1" "$(mib "$(resident_kib "$agent_pid_1")")"
    columns "desk2" "$(mib "$(resident_kib "$agent_pid_2")")"
    columns "the client's daemon" "$(mib "$(resident_kib "$(daemon_pid in_client)")")"
}
