# A workspace with path dependencies, as in its repository: its own libraries are put back beside it.
version=15.2.0
prepare() { # once, in the package's folder; CARGO_HOME is set
    local name version
    mkdir libraries
    printf '\n[patch.crates-io]\n' >>Cargo.toml
    for name in globset grep grep-cli grep-matcher grep-printer grep-regex grep-searcher ignore; do
        version=$(awk -v name="\"$name\"" '$1 == "name" { found = $3 == name } found && $1 == "version" { gsub("\"", "", $3); print $3; exit }' Cargo.lock)
        cp -a "$CARGO_HOME"/registry/src/*/"$name-$version" "libraries/$name"
        printf '%s = { path = "libraries/%s" }\n' "$name" "$name" >>Cargo.toml
    done
    sed -i 's/^\[workspace\]$/[workspace]\nmembers = ["libraries\/*"]/' Cargo.toml
    # Their entries in the lock file lose the registry; what only their tests and benchmarks need is added to it.
    cargo fetch --quiet
}
