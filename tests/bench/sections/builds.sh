# Builds with caches of this machine only: what a miss costs on top of the compiler, and what a rebuild from clean costs.
section_builds() {
    measure_builds zstd
    measure_builds rocksdb
}

measure_builds() { # project
    local by round tools=(plain)
    use_project "$1"
    forget
    for by in ccache sccache buildbee; do ! have "$by" || tools+=("$by"); done
    # Toolchains are looked at once, not per build.
    for by in "${tools[@]:1}"; do as "$by" "$by" "$compiler" -c "$work/src/stdio.c" -o "$work/stdio.o"; done
    for round in $(seq "$builds"); do
        for by in "${tools[@]}"; do
            empty_cache "$by"
            build "$by" "$by" 2 || return
            [ "$by" = plain ] || keep_rebuilds "$by" || return
        done
    done
    section "miss, $title, empty caches, make -j2, medians of $builds interleaved builds"
    columns "" "wall ms" "CPU ms" "CPU/plain"
    for by in "${tools[@]}"; do
        columns "$(label_of "$by")" "$(ms "$(wall "$by")")" "$(ms "$(client_cpu "$by")")" "$(ratio "$(client_cpu "$by")" "$(client_cpu plain)")"
    done
    wanted "CPU to plain" "$(ratio "$(client_cpu buildbee)" "$(client_cpu plain)")" 1.03
    section "rebuild from clean, $title, full caches, make -j2, medians of $((builds * rebuilds)) builds; make itself is in all rows"
    columns "" "wall ms" "CPU ms" "CPU/plain" "CPU/ccache"
    for by in "${tools[@]:1}"; do
        columns "$(label_of "$by")" "$(ms "$(wall "again-$by")")" "$(ms "$(client_cpu "again-$by")")" \
            "$(ratio "$(client_cpu "again-$by")" "$(client_cpu plain)")" "$(ratio "$(client_cpu "again-$by")" "$(client_cpu again-ccache)")"
    done
    wanted "CPU to ccache" "$(ratio "$(client_cpu again-buildbee)" "$(client_cpu again-ccache)")" 0.60
}
keep_rebuilds() { # tool
    local n
    sleep 1.2
    for n in $(seq "$rebuilds"); do build "again-$1" "$1" 2 || return; done
}
