# Some 100 crates; one has assembler files, compiled by its build script.
version=1.59.0
