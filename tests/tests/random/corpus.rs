//! The sources that command lines are drawn for: small, with headers, warnings of many kinds, debug information worth the name.

use std::fs;
use std::path::Path;

/// What a command line may compile, most of it in a language that its compiler takes.
pub(crate) const SOURCES: [&str; 9] =
    ["a.c", "plain.c", "warn.c", "b.cpp", "c.cc", "bad.c", "pre.i", "hand.s", "cooked.S"];

const FILES: [(&str, &str); 15] = [
    (
        "a.c",
        "#include <stddef.h>\n#include <string.h>\n#include \"inc/a.h\"\n#include <deep.h>\n\
         static int unused(void) { return 1; }\n\
         struct pair sum(const struct pair *all, size_t n) {\n    struct pair r = {0, 0};\n\
             for (int i = 0; i < n; i++) { r.a += all[i].a * SCALE; r.b += all[i].b / (i + 1.5); }\n    return r;\n}\n\
         unsigned long length(const char *s) { return s ? strlen(s) : sizeof(\"nothing\") + DEEP; }\n\
         const char *where(void) { return __FILE__; }\n",
    ),
    (
        "plain.c",
        "int counter;\nint plain(int x)\n{\n    int never;\n    while (x > 3)\n        x = x / 3 + counter++;\n    return x;\n}\n",
    ),
    (
        "warn.c",
        "#warning caf\u{e9}\n#pragma message \"noted\"\n#include \"inc/deep.h\"\n#include \"inc/deep.h\"\n\
         int w(char c, unsigned u) { if (c = u) return -1 > u; switch (c) { case 1: c++; default: ; } return \"ab\"[3]; }\n\
         double d(float f) { return f == 0.1 ? 1 : f * 1e400; }\n",
    ),
    (
        "b.cpp",
        "#include <initializer_list>\n#include \"inc/b.hpp\"\n\
         template <int N> struct scaled { static int of(int x) { return x * N; } };\n\
         int total(std::initializer_list<int> all) { int sum = 0; for (auto each : all) sum += scaled<3>::of(each); return sum; }\n\
         struct base { virtual ~base() {} virtual int f() { return 1; } };\nstruct child : base { int f() override { return total({1, 2}); } };\n\
         int guarded(base &b) { try { return b.f(); } catch (int x) { return x; } }\nbase *made() { return new child; }\n",
    ),
    (
        "c.cc",
        "#include \"inc/b.hpp\"\nint unused_variable() { int x; unsigned u = 1; auto f = [&](int y) { return y < u; }; return f(2) + B; }\n",
    ),
    ("bad.c", "#include \"inc/a.h\"\nint bad(struct pair p) { return p.c + missing; }\nint worse(void { }\n"),
    (
        "pre.i",
        "# 1 \"elsewhere.c\"\n# 1 \"/usr/include/none.h\" 1 3 4\nextern int printf(const char *, ...);\n# 2 \"elsewhere.c\" 2\nint pre(void) { return printf(\"%d\\n\", 1L); }\n",
    ),
    ("hand.s", ".globl hand\nhand:\n    ret\n"),
    ("cooked.S", "#include \"inc/deep.h\"\n.globl cooked\ncooked:\n    ret\n    .long DEEP\n"),
    ("inc/a.h", "#pragma once\n#include \"deep.h\"\n#define SCALE 3\nstruct pair { int a; double b; };\n"),
    ("inc/deep.h", "#ifndef DEEP\n#define DEEP 7\n#endif\n"),
    (
        "inc/b.hpp",
        "#pragma once\n#if __has_include(<version>) && __cplusplus > 201703L\n#include <version>\n#endif\n#define B 5\n",
    ),
    ("inc/pre.h", "#define PRE 1\n"),
    ("inc/list.txt", "fun:plain\nsrc:*warn.c\n"),
    ("out/.keep", ""),
];

/// Makes `folder` hold the corpus and nothing else.
pub(crate) fn restore(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    for (name, text) in FILES {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
