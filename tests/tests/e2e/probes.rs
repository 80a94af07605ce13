//! What configure scripts and curious users do with a compiler: nothing that can be seen may differ.

use std::fs;
use std::path::Path;

use buildbee_tests::farm::{Farm, Options};

use crate::side_by_side::same;

const CONFIGURE: &str = r#"
# The bones of a configure script.
try() { # name, flags
    echo "$3" > conftest.c
    if $CC $2 -c conftest.c 2>conftest.err && test -s conftest.o; then echo "$1: yes"; else echo "$1: no"; fi
    sed 's/^/  | /' conftest.err
    rm -f conftest.o conftest.err
}
try 'compiler works' '' 'int main(void) { return 0; }'
try 'syntax error' '' 'int main(void { return 0; }'
try 'stdio.h' '' '#include <stdio.h>'
try 'windows.h' '' '#include <windows.h>'
try 'size of long is 8' '' 'static int a[1 - 2 * !(sizeof(long) == 8)];'
try 'size of long is 4' '' 'static int a[1 - 2 * !(sizeof(long) == 4)];'
try '-Wall -Werror' '-Wall -Werror' 'int main(void) { return 0; }'
try '-fstack-protector-strong' '-fstack-protector-strong' 'int main(void) { return 0; }'
try '-fno-such-flag' '-fno-such-flag' 'int main(void) { return 0; }'
try 'inline asm' '' 'int main(void) { __asm__("nop"); return 0; }'
try 'depends' '-MD -MP -MF conftest.d' '#include <stdint.h>'
cat conftest.d | tr -d '\\\n' | tr -s ' '; echo; rm -f conftest.d
echo 'int main(void) { return 7; }' > conftest.c
$CC -o conftest conftest.c && ./conftest; echo "ran: $?"
$CC conftest.c && ./a.out; echo "ran: $?"
$CC -c conftest.c -o conf.o && $CC conf.o -o conftest -lm && ./conftest; echo "linked: $?"
$CC -o conftest conftest.c -lno_such_library 2>conftest.err; echo "status $?"; cat conftest.err
rm -rf conftest conftest.* a.out conf.o
"#;

#[test]
fn configure_sees_the_compiler_that_it_would_see_without() {
    let farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    let folder = farm.path("probe");
    let seen = same(&farm, &folder, "sh ./configure; test -z \"$(ls | grep conf | grep -v configure)\"", |folder| {
        fs::write(folder.join("configure"), CONFIGURE).unwrap();
    });
    assert_eq!(seen.code, Some(0), "{seen:?}");
    for expected in [
        "compiler works: yes",
        "windows.h: no",
        "size of long is 8: yes",
        "size of long is 4: no",
        "ran: 7",
        "linked: 7",
    ] {
        assert!(seen.stdout.contains(expected), "{expected}: {}", seen.stdout);
    }
    assert!(farm.counts().1 >= 5, "{}", farm.json(&["stats"]));
}

#[test]
fn questions_and_odd_commands_are_answered_by_the_compiler() {
    let farm = Farm::up(Options { n_agents: 1, ..Options::default() });
    let folder = farm.path("probe");
    let set_up = |folder: &Path| {
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("a.c", "#include <stddef.h>\nint a(void) { return 1; }\n");
        write("b.c", "int b(void) { return 2; }\n");
        write("main.c", "int a(void), b(void);\nint main(void) { return a() + b(); }\n");
        write("s.s", ".globl s\ns: ret\n");
        write("S.S", "#define NAME s2\n.globl NAME\nNAME: ret\n");
        write("arguments", "-O2 -g\n-DX='1 2' -c a.c -o a.o\n");
        write("time.c", "const char *line = \"x\" __FILE__; int counter = __COUNTER__;\n");
    };
    let lines = [
        "$CC --version",
        "$CC -v",
        "$CC -dumpversion; $CC -dumpmachine; $CC -dumpspecs | head -3",
        "$CC -print-prog-name=ld; $CC -print-file-name=libc.so; $CC -print-search-dirs; $CC -print-multi-lib",
        "$CC --help | head -5; $CC -Q --help=warnings | head -5",
        "$CC -### -c a.c",
        "$CC -E a.c",
        "$CC -E -dM - </dev/null | sort",
        "$CC -M a.c; $CC -MM a.c b.c; $CC -fsyntax-only a.c",
        "echo 'int x;' | $CC -x c -c - -o x.o",
        "echo 'int x;' | $CC -E -",
        "echo 'int x = 1;' | $CC -x c -S - -o -",
        "$CC -c a.c -o /dev/null",
        "$CC -c a.c b.c",
        "$CC -c a.c b.c -o both.o",
        "$CC a.c b.c main.c -o prog && ./prog; echo $?",
        "$CC -c s.s && $CC -c S.S",
        "$CC @arguments",
        "$CC @nowhere",
        "$CC -S a.c && cat a.s",
        "$CC -save-temps -c a.c",
        "$CC -O2 -flto -frandom-seed=1 -c a.c",
        "$CC -g -gsplit-dwarf -c a.c",
        "$CC --coverage -frandom-seed=1 -c a.c",
        "$CC -march=native -c a.c",
        "$CC -pipe -O2 -c a.c",
        "$CC -c time.c",
        "$CC -fdebug-prefix-map=$PWD=. -g -c a.c",
        "$CC -x c++ -c b.c -o b.o",
        "$CXX -c b.c && $CXX -x c -c a.c",
        "$CC -shared -fPIC a.c -o liba.so && $CC main.c b.c -L. -la -Wl,-rpath,$PWD -o prog && ./prog; echo $?",
        "$CC -Wl,--version | head -1",
        "$CC -c a.c -MD -MT 'x y' -MQ '$(z)' -MF deps/none.d; ls",
        "mkdir d; $CC -c a.c -MMD -MP -MF d/a.dep -o d/a.o",
        "$CC -Wp,-MD,a.dep -c a.c",
        "$CC -I. -include b.c -c a.c",
        "$CC -DX -UX '-DY=\"a b\"' -c a.c",
        "cp a.c 'with space.c'; $CC -c 'with space.c'; $CC -c ./a.c -o './odd $name.o'",
        "exec 1>&-; $CC -c a.c",
        "exec 2>&-; $CC -Wall -c a.c",
        "$CC -c a.c </dev/null >out 2>err; cat out err",
        "$CC -c a.c & wait $!; echo $?",
    ];
    for line in lines {
        same(&farm, &folder, line, set_up);
    }
}
