# Whole applications elsewhere: what stays with the client, and what goes over the wire.
section_remote() {
    local application
    farm_network
    [ -n "$netns" ] || die "no network namespaces can be made here"
    tool=farm
    # As many slots in all as there are cores: with more, compilers get in each other's way, which is not the farm's doing (plain cargo takes
    # an eighth more processor time with -j4 than with -j2 on two cores).
    slots_per_desk=$((($(nproc) + 1) / 2))
    farm_up 2 >"$work/farm.log" 2>&1
    join_machine client "$(in_client buildbee status --json | tr -d ' \n' | grep -o '"pid":[0-9]*' | head -n 1 | cut -d: -f2)"
    for application in $applications; do remote_builds_of "$application"; done
    tool=""
}

remote_builds_of() { # application
    local linked=1 features tree="$work/tree" home="$sources/cargo-home" n counts=()
    features=$(application_of "$1" features)
    forget
    rm -rf "$tree"
    cp -a "$sources/$1" "$tree"
    # The agents get the toolchain, linker included, beforehand.
    mkdir -p "$work/first/src"
    printf '[package]\nname = "first"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n' >"$work/first/Cargo.toml"
    echo 'fn main() {}' >"$work/first/src/main.rs"
    (cd "$work/first" && as plain cargo generate-lockfile --offline --quiet)
    for n in 1 2 3 4; do echo "fn main() { println!(\"$n\"); }" >"$work/first/src/main.rs" && build toolchain farm "$work/first" "$home" 2 build; done
    # shellcheck disable=SC2086
    {
        build plain plain "$tree" "$home" 2 build $features
        in_client buildbee cache clear >/dev/null
        in_client buildbee stats --zero >/dev/null
        build first farm "$tree" "$home" 8 build $features
        counts+=("$(in_client buildbee stats --json | tr -d ' \n' | grep -o '"\(cached\|remote\|local\)":[0-9]*\|"reasons":{[^}]*}' | tr '\n' ' ')")
        in_client buildbee cache clear >/dev/null
        build shared farm "$tree" "$home" 8 build $features
        build cached farm "$tree" "$home" 8 build $features
    }
    section "$1, elsewhere, -j8, two machines with $slots_per_desk slots each on these cores; the toolchain is there"
    columns "" "wall ms" "client CPU ms" "to plain" "total/plain" "sent MB" "received MB"
    row_remote "plain cargo, here, -j2" plain
    row_remote "buildbee, agents know nothing" first
    note "${counts[0]}"
    row_remote "buildbee, results at the agents" shared
    row_remote "buildbee, results here" cached
    wanted "share of the client" "$(ratio "$(client_cpu first)" "$(client_cpu plain)")" 0.15
    wanted "total to plain" "$(ratio "$(total_cpu first)" "$(total_cpu plain)")" 1.10
}
row_remote() { # label, samples
    columns "$1" "$(ms "$(wall "$2")")" "$(ms "$(client_cpu "$2")")" "$(ratio "$(client_cpu "$2")" "$(client_cpu plain)")" \
        "$(ratio "$(total_cpu "$2")" "$(total_cpu plain)")" "$(megabytes "$(sent "$2")")" "$(megabytes "$(received "$2")")"
}
