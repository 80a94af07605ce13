# One tiny library, compiled again and again: the compiler, and hits. mbx has no wrapper outside its own command, so it is in the second
# table alone: a workspace of tiny libraries, where cargo itself is in all rows.
section_tiny() {
    one_tiny_crate
    many_tiny_crates
}

one_tiny_crate() {
    local by round folder="$work/one" hits
    forget
    mkdir -p "$folder/src" "$folder/out"
    echo 'pub fn answer() -> u32 { 42 }' >"$folder/src/lib.rs"
    local words=(rustc --crate-name tiny --edition=2021 src/lib.rs --error-format=json --json=diagnostic-rendered-ansi,artifacts
        --crate-type lib "--emit=dep-info,metadata,link" -C embed-bitcode=no -C debuginfo=2 -C metadata=0123 -C extra-filename=-0123
        --out-dir out)
    sleep 1.2
    for by in "${tools[@]}"; do
        [ "$by" != mbx ] || continue
        [ "$by" = plain ] || (cd "$folder" && for _ in 1 2 3; do as "$by" "$by" "${words[@]}"; done) 2>/dev/null
        for round in 1 2 3 4; do
            sample_calls "$by" "$((n_hits / 4))" "${words[@]}"
        done
    done
    section "a tiny library, hit, medians of 4 rounds of $((n_hits / 4)) calls"
    columns "" "wall ms" "CPU ms" "CPU/rustc"
    for by in "${tools[@]}"; do
        if [ "$by" = mbx ]; then absent mbx "it has no wrapper outside its own command"; continue; fi
        columns "$([ "$by" = plain ] && echo rustc || label_of "$by")" "$(ms "$(wall "call-$by")")" "$(ms "$(client_cpu "call-$by")")" \
            "$(ratio "$(client_cpu "call-$by")" "$(client_cpu call-plain)")"
    done
    wanted "CPU ms, daemon included" "$(ms "$(client_cpu call-buildbee)")" 4
}
sample_calls() { # tool, calls, words...
    local by=$1 tool=$1 calls=$2 started client wall
    shift 2
    mkdir -p "$groups/$by.client"
    client=$(used_us "$by.client") started=$(date +%s%N)
    (
        join_machine client
        cd "$folder" || exit 1
        [ "$by" = plain ] || set -- "$by" "$@"
        under "$by" "$work/built/sample" "$calls" "$@"
    ) >"$work/sampled" 2>/dev/null || note "$by fails at a tiny library"
    wall=$((($(date +%s%N) - started) / 1000))
    settle "$by"
    client=$(($(used_us "$by.client") - client))
    echo "$((wall / calls)) $((client / calls)) 0 0 0" >>"$work/samples/call-$by"
}

many_tiny_crates() {
    local by n folder="$work/many"
    forget
    mkdir -p "$folder"
    {
        echo '[workspace]'
        echo 'resolver = "2"'
        echo 'members = ["tiny*"]'
    } >"$folder/Cargo.toml"
    for n in $(seq "$n_tiny"); do
        mkdir -p "$folder/tiny$n/src"
        printf '[package]\nname = "tiny%d"\nversion = "0.1.0"\nedition = "2021"\n' "$n" >"$folder/tiny$n/Cargo.toml"
        echo "pub fn answer() -> u32 { $n }" >"$folder/tiny$n/src/lib.rs"
    done
    mkdir -p "$work/empty home"
    (cd "$folder" && CARGO_HOME="$work/empty home" as plain cargo generate-lockfile --offline --quiet)
    sleep 1.2
    for by in "${tools[@]}"; do
        build "many-cold-$by" "$by" "$folder" "$work/empty home" 2 build || continue
        [ "$by" = plain ] || for n in $(seq "$warms"); do build "many-$by" "$by" "$folder" "$work/empty home" 2 build; done
    done
    section "$n_tiny tiny libraries in one workspace, again from clean, medians of $warms builds; cargo is in all rows"
    columns "" "wall ms" "CPU ms" "CPU/plain" "CPU/mbx"
    columns "plain cargo, cold" "$(ms "$(wall many-cold-plain)")" "$(ms "$(client_cpu many-cold-plain)")" 1
    for by in "${tools[@]:1}"; do
        columns "$(label_of "$by")" "$(ms "$(wall "many-$by")")" "$(ms "$(client_cpu "many-$by")")" \
            "$(ratio "$(client_cpu "many-$by")" "$(client_cpu many-cold-plain)")" "$(ratio "$(client_cpu "many-$by")" "$(client_cpu many-mbx)")"
    done
    wanted "CPU to mbx" "$(ratio "$(client_cpu many-buildbee)" "$(client_cpu many-mbx)")" 1
}
