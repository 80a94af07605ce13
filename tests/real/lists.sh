# Functions of both comparisons: two lists of what builds made, and numbers of buildbee's statistics. Sourced by them.

# A list has a line for each file: path, mode or kind, digest or target, parted by tabs. Prints how many files there are in all, are the same
# as the reference's, differ between two builds of the reference already, and differ where they may; writes the others to `differing`.
compare_lists() { # reference, reference again, list, differing, pattern of paths that may differ ("" for none)
    awk -F '\t' -v differing="$4" -v excused="$5" '
        { value = $2 "\t" $3; all[$1] = 1 }
        FILENAME == ARGV[1] { plain[$1] = value }
        FILENAME == ARGV[2] { again[$1] = value }
        FILENAME == ARGV[3] { way[$1] = value }
        END {
            for (path in all) {
                files++
                if (plain[path] == way[path]) same++
                else if (plain[path] != again[path]) vary++
                else if (excused && path ~ excused) place++
                else print path " (reference: " (plain[path] ? plain[path] : "absent") ", here: " (way[path] ? way[path] : "absent") ")" >differing
            }
            print files + 0, same + 0, vary + 0, place + 0
        }' "$1" "$2" "$3"
}

# One whole number of the statistics, read without a JSON tool; `-` where there are none.
number() { # key, file
    [ -f "$2" ] || { echo -; return; }
    tr -d ' \n' <"$2" | grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2
}
reasons() { # file
    [ -f "$1" ] || return 0
    tr -d ' \n' <"$1" | sed -n 's/.*"reasons":{\([^}]*\)}.*/\1/p' | tr -d '"' | sed 's/:/ /g; s/,/, /g'
}
