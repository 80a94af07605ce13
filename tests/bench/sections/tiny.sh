# Many tiny compiles elsewhere, one after the other, toolchain in place: what sending one away costs.
section_tiny() {
    local by n least objects
    forget
    as farm buildbee stats --zero >/dev/null
    # A place for each object, as in a build, and in memory: ext4 takes up to two milliseconds for a new file where many were removed in the
    # last minutes.
    objects="$work/objects"
    mkdir "$objects" && mount -t tmpfs -o mode=755 none "$objects" || die "no memory can be mounted for objects"
    for by in plain "${remote_tools[@]}"; do mkdir -p "$objects/$by"; done
    for n in $(seq "$jobs"); do
        for by in plain "${remote_tools[@]}"; do
            # shellcheck disable=SC2046
            measure "$by" "$by" 1 1 $(launcher_of "$by") gcc -O2 -c "$work/src/job$n.c" -o "$objects/$by/job$n.o" 2>>"$work/tiny.log"
        done
    done
    umount "$objects" && rmdir "$objects"
    section "one tiny C file elsewhere, $jobs different ones, interleaved"
    columns "" "least wall ms" "over plain" "median wall" "client CPU ms" "total CPU ms" "total/plain"
    for by in plain "${remote_tools[@]}"; do
        least=$(least_wall "$by")
        columns "$(label_of "$by")" "$(ms "$least")" "$(ms "$(minus "$least" "$(least_wall plain)")")" "$(ms "$(wall "$by")")" \
            "$(ms "$(client_cpu "$by")")" "$(ms "$(total_cpu "$by")")" "$(ratio "$(total_cpu "$by")" "$(total_cpu plain)")"
    done
    n=$(count remote farm)
    [ "$n" -eq "$jobs" ] || note "only $n of buildbee's ran on an agent"
    wanted "client CPU ms" "$(ms "$(client_cpu farm)")" 3
    wanted "total CPU to plain" "$(ratio "$(total_cpu farm)" "$(total_cpu plain)")" 1.5
    wanted "ms of wall over plain at the minimum" "$(ms "$(minus "$(least_wall farm)" "$(least_wall plain)")")" 15
}
