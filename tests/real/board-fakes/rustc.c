/* A rustc that says of itself what the file `told` beside it says (`-vV`, `--version`), and that its sysroot is where it is. It compiles nothing: who
   compares what it says need not ask for more. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int n, char **arguments) {
    char place[PATH_MAX] = "";
    if (n < 2 || readlink("/proc/self/exe", place, sizeof place - 1) < 0) return 2;
    *strrchr(place, '/') = 0;
    int asks_line = !strcmp(arguments[1], "--version");
    if (asks_line || !strcmp(arguments[1], "-vV")) {
        strncat(place, "/told", sizeof place - strlen(place) - 1);
        FILE *file = fopen(place, "r");
        for (int byte = 0; file && !(asks_line && byte == '\n') && (byte = getc(file)) != EOF;) putchar(byte);
        return !file;
    }
    if (n == 3 && !strcmp(arguments[1], "--print") && !strcmp(arguments[2], "sysroot")) {
        *strrchr(place, '/') = 0;
        return puts(place) == EOF;
    }
    return 1;
}
