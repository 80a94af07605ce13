# Functions of the benchmark: what is compiled. Sourced by `c`, which sets $sources and $work.

# Small files of our own, among them a C++ file with 300 headers.
write_sources() {
    local n
    mkdir -p "$work/src/headers"
    echo 'int answer(void) { return 42; }' >"$work/src/tiny.c"
    printf '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n' >"$work/src/stdio.c"
    for n in $(seq 300); do
        printf '#pragma once\n%s\nstruct part%d { int value[%d]; int sum() const { int s = 0; for (int v : value) s += v; return s; } };\n' \
            "$([ "$n" -eq 1 ] || echo "#include \"part$((n - 1)).h\"")" "$n" "$n" >"$work/src/headers/part$n.h"
    done
    {
        for n in $(seq 300); do echo "#include \"headers/part$n.h\""; done
        echo 'int answer() { return part300{}.sum(); }'
    } >"$work/src/headers.cc"
    for n in $(seq "$jobs"); do echo "int answer$n(void) { return $n; }" >"$work/src/job$n.c"; done
    for n in 1 2 3 4 5 6 7 8; do echo "int warm$n() { return $n; }" >"$work/src/warm$n.cc"; done
    # Caches trust no file that was written a moment ago.
    sleep 1.2
}

# A real project: sets $tree, $files, $flags, $compiler and $title.
use_project() { # name
    tree="$sources/$1" out="$work/out/$1"
    case $1 in
    zstd)
        compiler=gcc flags="-O2 -g -DXXH_NAMESPACE=ZSTD_ -DZSTD_DISABLE_ASM=1"
        files=$(cd "$tree" && echo lib/common/*.c lib/decompress/*.c lib/dictBuilder/*.c)
        ;;
    rocksdb)
        compiler=g++ flags="-O1 -std=c++17 -I. -Iinclude -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX"
        files="util/comparator.cc util/compression.cc util/dynamic_bloom.cc util/file_checksum_helper.cc util/rate_limiter.cc
            util/ribbon_config.cc util/slice.cc util/status.cc util/string_util.cc util/thread_local.cc util/threadpool_imp.cc
            util/concurrent_task_limiter_impl.cc"
        ;;
    esac
    title="$(wc -w <<<"$files") files of $1, ${flags%% -[DI]*}"
}

# One build of the project from clean, as one sample.
build() { # samples, tool, parallel jobs, further flags
    # shellcheck disable=SC2046
    (rm -rf "$out" && mkdir -p $(printf "$out/%s\n" $files | xargs dirname | sort -u))
    # shellcheck disable=SC2086
    measure "$1" "$2" 1 1 timeout 300 make -s -f "$here/objects.mk" -C "$tree" -j"$3" OUT="$out" FILES="$(echo $files)" FLAGS="$flags ${4:-}" \
        COMPILER="$(launcher_of "$2") $compiler" >"$work/build.log" 2>&1 || { tail -n 5 "$work/build.log" | sed 's/^/  /'; return 1; }
}
