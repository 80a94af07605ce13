# Functions of the benchmark for Rust: every tool by one name, builds under it, and what they started. Sourced by `rust`.
#
# Each tool has a home of its own, in which it keeps its store and its daemon's socket. All that it starts is counted by control groups,
# cargo and compilers included.

label_of() { # tool
    case $1 in
    plain) echo "plain cargo" ;;
    farm) echo "buildbee, two agents" ;;
    *) echo "$1" ;;
    esac
}
tracing="strace -f -qq --seccomp-bpf -s 100000 -e trace=execve -e signal=none -o"
have() { command -v "$1" >/dev/null 2>&1; }

# Becomes a command under a tool; with $tracer_words before it.
under() { # tool, command...
    local by=$1 home="$work/homes/$1"
    shift
    mkdir -p -m 700 "$home"
    export HOME=$home XDG_CACHE_HOME=$home/cache XDG_CONFIG_HOME=$home/config XDG_DATA_HOME=$home/data XDG_STATE_HOME=$home/state
    export XDG_RUNTIME_DIR=$home SCCACHE_SERVER_PORT=$((20000 + $$ % 20000))
    case $by in
    plain) exec ${tracer_words:-} "$@" ;;
    farm) RUSTC_WRAPPER=buildbee in_client "$@" ;;
    # It wraps the command, not the compiler.
    mbx) if [ "$1" = cargo ]; then shift && exec ${tracer_words:-} mbx "$@"; else exec "$@"; fi ;;
    buildbee)
        export BUILDBEE_SOCKET="$home/daemon.sock" BUILDBEE_STATE_DIR="$home/state" BUILDBEE_CACHE_DIR="$home/cache"
        # C of build scripts goes through it too, by links named like compilers.
        mkdir -p "$work/links"
        ln -sf "$(command -v buildbee)" "$work/links/gcc"
        ln -sf "$(command -v buildbee)" "$work/links/g++"
        CC="$work/links/gcc" CXX="$work/links/g++" RUSTC_WRAPPER=buildbee exec ${tracer_words:-} "$@" ;;
    *) RUSTC_WRAPPER=$by exec ${tracer_words:-} "$@" ;;
    esac
}
as() { (tool=$1; join_machine client; under "$@"); }

# Empties a tool's store and ends its daemon.
forget_all() { # tool
    case $1 in
    plain) return ;;
    sccache) as sccache sccache --stop-server >/dev/null 2>&1 ;;
    kache) as kache kache daemon stop >/dev/null 2>&1 ;;
    buildbee) as buildbee buildbee stop >/dev/null 2>&1 ;;
    esac
    local pid tries
    for tries in 1 2 3 4 5 6; do
        [ -s "$groups/$1.client/cgroup.procs" ] || break
        sleep 0.5
    done
    # Whatever of it is left has only this run's store.
    while read -r pid; do kill "$pid" 2>/dev/null; done < <(cat "$groups/$1.client/cgroup.procs" 2>/dev/null)
    rm -rf "${work:?}/homes/$1"
}
tools_down() {
    local by
    for by in sccache kache mbx buildbee; do [ ! -d "$work/homes/$by" ] || forget_all "$by"; done
}
stored_bytes() { du -sb "$work/homes/$1" 2>/dev/null | cut -f1; } # tool

# mbx keeps it elsewhere, behind a link.
remove_target() { # tree
    local real
    real=$(readlink -f "$1/target")
    rm -rf "${real:?}" "${1:?}/target"
}

# One build from clean as one sample: wall, processor time of the client, of all machines, bytes sent and received.
build() { # samples, tool, tree, cargo home, jobs, words of cargo...
    local name=$1 by=$2 tree=$3 home=$4 jobs=$5 tool=$2 started wall client all sent=0 received=0 more_sent=0 more_received=0 status=0
    shift 5
    remove_target "$tree"
    if [ -n "${linked:-}" ]; then read -r sent received < <(link_bytes); fi
    mkdir -p "$groups/$by.client"
    client=$(used_us "$by.client") all=$(used_us "$by.*") started=$(date +%s%N)
    (join_machine client; cd "$tree" && CARGO_HOME=$home under "$by" cargo "$@" --offline --locked --quiet -j "$jobs") >"$work/build.log" 2>&1 || status=$?
    wall=$((($(date +%s%N) - started) / 1000))
    settle "$by"
    client=$(($(used_us "$by.client") - client)) all=$(($(used_us "$by.*") - all))
    if [ -n "${linked:-}" ]; then read -r more_sent more_received < <(link_bytes); fi
    [ "$status" -eq 0 ] || { note "$by does not build this: $(tail -n 4 "$work/build.log" | tr "\n" " ")"; return 1; }
    echo "$wall $client $all $((more_sent - sent)) $((more_received - received))" >>"$work/samples/$name"
}

# The same with every program start traced, in the tool's daemons too. Sets $n_calls (crates that cargo had compiled), $n_hits (those that
# no compiler was started for) and $n_starts (compilers started, questions included).
trace_build() { # tool, tree, cargo home, features
    local by=$1 tool=$1 pids=() pid tracer="" tries
    remove_target "$2"
    rm -rf "$work"/starts.*
    mkdir -p "$groups/$by.client"
    if [ "$by" = buildbee ]; then
        # A daemon that is stopped at each of its calls is too slow for its wrappers: this one is traced from its start.
        as buildbee buildbee stop >/dev/null 2>&1
        for tries in {1..25}; do [ -s "$groups/$by.client/cgroup.procs" ] || break; sleep 0.2; done
        (tracer_words="$tracing $work/starts.daemon"; as buildbee buildbee daemon >/dev/null 2>&1) &
        for tries in {1..50}; do [ ! -S "$work/homes/buildbee/daemon.sock" ] || break; sleep 0.1; done
    else
        while read -r pid; do pids+=(-p "$pid"); done <"$groups/$by.client/cgroup.procs"
    fi
    if [ "${#pids[@]}" -gt 0 ]; then
        strace -f -qq -s 100000 -e trace=execve -e signal=none -o "$work/starts.daemon" "${pids[@]}" 2>/dev/null &
        tracer=$!
        sleep 0.5
    fi
    tracer_words="$tracing $work/starts.cargo"
    # shellcheck disable=SC2086
    (join_machine client; cd "$2" && CARGO_HOME=$3 under "$by" cargo build --offline --locked -j 2 --message-format json ${4:-}) \
        >"$work/messages" 2>/dev/null
    tracer_words=""
    [ -z "$tracer" ] || { kill "$tracer"; wait "$tracer" 2>/dev/null; }
    [ "$by" != buildbee ] || as buildbee buildbee stop >/dev/null 2>&1
    n_calls=$(grep '"reason":"compiler-artifact"' "$work/messages" | grep -c '"fresh":false')
    cat "$work"/starts.* | grep -E 'execve\("[^"]*/rustc", \[' | grep -v ENOENT >"$work/compilers"
    n_starts=$(wc -l <"$work/compilers")
    n_hits=$((n_calls - $(grep -E '"--emit=[^"]*(link|metadata)' "$work/compilers" | grep -cE '"--out-dir", "[^"]*/(deps|build/[^"/]*)"')))
}
