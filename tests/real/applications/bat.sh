# Some 170 crates, two with many C files (libgit2, oniguruma) in build scripts.
version=0.26.1
