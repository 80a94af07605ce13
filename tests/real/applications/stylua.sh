# Some 80 crates, ten of them proc-macros, one of which writes most of a parser.
version=2.6.0
features="--all-features"
