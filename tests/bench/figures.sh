# Functions of the benchmark: samples and medians, rows of tables, limits. Sourced by `c`, which sets $work and $built.

# Runs a command so many times and adds a line a run to $work/samples/NAME: wall time, processor time of the client (command and daemons),
# processor time of all machines (microseconds), bytes sent, bytes received. Shares of daemons and bytes are the mean of these runs.
measure() { # name, tool, runs, arguments of `sample`...
    local name=$1 by=$2 runs=$3 groups_by client all sent=0 received=0 more_sent=0 more_received=0 status=0
    shift 3
    if [ -n "${linked:-}" ]; then read -r sent received < <(link_bytes); fi
    groups_by=$(group_of "$by")
    client=$(used_us "$groups_by.client") all=$(used_us "$groups_by.*")
    as "$by" "$built/sample" "$@" >"$work/sampled" || status=$?
    settle "$groups_by"
    client=$(($(used_us "$groups_by.client") - client)) all=$(($(used_us "$groups_by.*") - all))
    if [ -n "${linked:-}" ]; then read -r more_sent more_received < <(link_bytes); fi
    awk -v runs="$runs" -v client="$client" -v all="$all" -v sent=$((more_sent - sent)) -v received=$((more_received - received)) \
        '{ print $1, $2 + client / runs, $2 + all / runs, sent / runs, received / runs }' "$work/sampled" >>"$work/samples/$name"
    return "$status"
}
# What daemons do after the answer is theirs, too: until they use (almost) nothing more.
settle() { # group
    local before now tries
    case $1 in plain | ccache) return ;; esac
    now=$(used_us "$1.*")
    for tries in $(seq 40); do
        before=$now
        sleep 0.05
        now=$(used_us "$1.*")
        [ $((now - before)) -gt 1000 ] || return 0
    done
}
forget() { rm -f "$work/samples/"*; }

median_of() { # numbers on standard input
    sort -n | awk '{ v[NR] = $1 } END { if (NR) printf "%.1f\n", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; else print "-" }'
}
column() { awk -v c="$2" '{ print $c }' "$work/samples/$1" 2>/dev/null; } # name, column
wall() { column "$1" 1 | median_of; }
least_wall() { column "$1" 1 | sort -n | awk 'NR == 1 { least = $1 } END { print NR ? least : "-" }'; }
client_cpu() { column "$1" 2 | median_of; }
total_cpu() { column "$1" 3 | median_of; }
sent() { column "$1" 4 | median_of; }
received() { column "$1" 5 | median_of; }

# From the page tables: the counters in /proc/PID/status are rough. What was swapped out would be resident given the memory.
resident_kib() { awk '/^(Rss|Swap):/ { n += $2 } END { print n + 0 }' "/proc/$1/smaps_rollup"; }

ms() { awk -v us="$1" 'BEGIN { if (us == "-" || us == "") print "-"; else if (us >= 100000) printf "%.0f", us / 1000; else printf "%.2f", us / 1000 }'; }
mib() { awk -v kib="$1" 'BEGIN { printf "%.1f", kib / 1024 }'; }
megabytes() { awk -v bytes="$1" 'BEGIN { if (bytes == "-") print bytes; else printf "%.2f", bytes / 1000000 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a == "-" || b == "-" || b + 0 <= 0) print "-"; else printf (a / b >= 0.1 ? "%.2f" : "%.3f"), a / b }'; }
minus() { awk -v a="$1" -v b="$2" 'BEGIN { if (a == "-" || b == "-") print "-"; else printf "%.1f", a - b }'; }
load() { cut -d' ' -f1-3 /proc/loadavg; }

section() { printf '\n%s   [load %s]\n' "$1" "$(load)"; }
columns() { printf '  %-34s' "$1"; shift; printf '%15s' "$@"; printf '\n'; }
note() { printf '      %s\n' "$*"; }
absent() { printf '  %-34s  absent: %s\n' "$1" "$2"; }
# A figure beside what the project wants of it. Informs only.
wanted() { # what, figure, limit
    awk -v what="$1" -v figure="$2" -v limit="$3" 'BEGIN {
        printf "      wanted: %s at most %s: %s\n", what, limit, figure == "-" ? "not measured" : (figure + 0 <= limit + 0 ? "met, " : "missed, ") figure
    }'
}
