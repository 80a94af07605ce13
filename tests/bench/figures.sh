# Functions of the benchmark: samples and medians, what a process uses, rows of the table. Sourced by `run`, which sets $work, $built.

# Samples pile up in $work/samples/NAME, one line a run: wall and processor microseconds.
sampled() { # name, arguments of `sample`...
    local name=$1
    shift
    ${sampler_prefix:-} "$built/sample" "$@" >>"$work/samples/$name"
}
forget() { rm -f "${@/#/$work/samples/}"; }

median_of() { # column; numbers on standard input
    awk -v c="$1" '{ print $c }' | sort -n | awk '{ v[NR] = $1 } END { if (NR) printf "%.0f\n", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; else print "-" }'
}
wall() { median_of 1 <"$work/samples/$1"; } # name: microseconds
cpu() { median_of 2 <"$work/samples/$1"; } # name: microseconds

# Hundredths of a second that a process has used, and those that its ended children have.
own_ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }
children_ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $14 + $15 }'; }
tick_us=$((1000000 / $(getconf CLK_TCK)))

# From the page tables: the counters in /proc/PID/status are rough. What was swapped out would be resident given the memory.
resident_kib() { awk '/^(Rss|Swap):/ { n += $2 } END { print n + 0 }' "/proc/$1/smaps_rollup"; }
# Of this, what is no page of a file on disk.
anonymous_kib() { awk '/^(Anonymous|Swap):/ { n += $2 } END { print n + 0 }' "/proc/$1/smaps_rollup"; }

ms() { awk -v us="$1" 'BEGIN { if (us == "-") print us; else if (us >= 100000) printf "%.0f", us / 1000; else printf "%.2f", us / 1000 }'; }
mib() { awk -v kib="$1" 'BEGIN { printf "%.1f", kib / 1024 }'; }
megabytes() { awk -v bytes="$1" 'BEGIN { printf "%.2f", bytes / 1000000 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a == "-" || b == "-" || b + 0 <= 0) print "-"; else printf (a / b >= 0.1 ? "%.2f" : "%.3f"), a / b }'; }
load() { cut -d' ' -f1-3 /proc/loadavg; }

section() { printf '\n%s   [load %s]\n' "$1" "$(load)"; }
columns() { printf '  %-34s' "$1"; shift; printf '%15s' "$@"; printf '\n'; }
skip() { printf '  %-34s  skipped: %s\n' "$1" "$2"; }
