# Functions of the benchmark: every tool by one name: how a command runs under it, and what stands before the compiler. Sourced by `c`.
#
# `plain`, `ccache`, `sccache` and `buildbee` run on the client alone; `farm` (buildbee with agents), `distcc`, `pump` and `icecc` are
# remote, in the client's network namespace.

as() { # tool, command...
    local by=$1
    shift
    case $by in
    plain | ccache) "$@" ;;
    sccache) SCCACHE_DIR="$work/sccache" SCCACHE_SERVER_PORT=$sccache_port SCCACHE_CONF="$work/none.toml" "$@" ;;
    buildbee)
        BUILDBEE_SOCKET="$work/alone/daemon.sock" BUILDBEE_STATE_DIR="$work/alone/state" BUILDBEE_CACHE_DIR="$work/alone/cache" \
            BUILDBEE_MDNS=off "$@"
        ;;
    farm) in_client "$@" ;;
    distcc) DISTCC_HOSTS=$distcc_hosts in_client "$@" ;;
    pump) DISTCC_HOSTS=$pump_hosts INCLUDE_SERVER_PORT=$include_server_port in_client "$@" ;;
    icecc) ICECC_TEST_SOCKET="$work/icecc/socket" in_client "$@" ;;
    esac
}
launcher_of() { # tool
    case $1 in
    plain) ;;
    farm) echo buildbee ;;
    pump) echo distcc ;;
    *) echo "$1" ;;
    esac
}
# What its daemons are counted under.
group_of() { # tool
    if [ "$1" = pump ]; then echo distcc; else echo "$1"; fi
}
label_of() { # tool
    case $1 in
    plain) echo "the compiler alone" ;;
    farm) echo buildbee ;;
    pump) echo "distcc pump" ;;
    *) echo "$1" ;;
    esac
}

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

# Empties the cache of a tool that runs on the client alone.
empty_cache() { # tool
    case $1 in
    ccache) rm -rf "$CCACHE_DIR" ;;
    sccache) sccache_down && rm -rf "$work/sccache" && sccache_up ;;
    buildbee) as buildbee buildbee cache clear >/dev/null ;;
    esac
}

# The daemon is started by whoever asks first; from then on it counts as the client's.
daemon_on_machine() { # tool
    local tool=$1
    join_machine client "$(as "$1" buildbee status --json | tr -d ' \n' | grep -o '"pid":[0-9]*' | head -n 1 | cut -d: -f2)"
}
count() { # key, tool
    as "$2" buildbee stats --json | tr -d ' \n' | grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2
}

alone_up() {
    mkdir -p -m 700 "$work/alone"
    as buildbee buildbee status >/dev/null || die "the daemon does not start"
    daemon_on_machine buildbee
    sccache_port=$((20000 + $$ % 20000))
    ! have sccache || sccache_up
}
sccache_up() {
    (tool=sccache join_machine client && as sccache sccache --start-server >/dev/null 2>&1)
}
sccache_down() {
    as sccache sccache --stop-server >/dev/null 2>&1 || true
}
alone_down() {
    as buildbee buildbee stop >/dev/null 2>&1
    ! have sccache || sccache_down
}
