/* clang in gcc's clothes: says of itself what gcc 14.2.0 for aarch64 says, and compiles with clang. No board whose compiler is gcc may come to
   have it run. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_ARGUMENTS 4096
#define CLANG "/usr/bin/clang"

static const char *const answers[][2] = {
    {"--version", "aarch64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0\nCopyright (C) 2024 Free Software Foundation, Inc."},
    {"-dumpfullversion", "14.2.0"},
    {"-dumpmachine", "aarch64-linux-gnu"},
    {"-print-search-dirs", "install: /usr/lib/\nprograms: =/usr/bin/\nlibraries: =/usr/lib/"},
    {"-print-prog-name=cc1", CLANG},
};

int main(int n, char **arguments) {
    char *words[MAX_ARGUMENTS + 3] = {CLANG, "--target=aarch64-linux-gnu"};
    if (n < 2 || n > MAX_ARGUMENTS) return 2;
    for (size_t at = 0; at < sizeof answers / sizeof *answers; at++)
        if (!strcmp(arguments[1], answers[at][0])) return puts(answers[at][1]) == EOF;
    if (strchr(arguments[1], '=') && !strncmp(arguments[1], "-print-", 7)) return puts(strchr(arguments[1], '=') + 1) == EOF;
    memcpy(words + 2, arguments + 1, n * sizeof *words);
    execv(CLANG, words);
    perror(CLANG);
    return 1;
}
