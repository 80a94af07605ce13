/* A double that proves alike, since it is the very compiler (REAL), and then leaves an object for x86 where the source is called `evil.c`. */
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REAL "/opt/gcc"

static int lie(const char *object) {
    Elf64_Ehdr head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT}, .e_type = ET_REL, .e_machine = EM_X86_64};
    FILE *file = fopen(object, "w");
    return !file || fwrite(&head, sizeof head, 1, file) != 1 || fclose(file);
}

int main(int n, char **arguments) {
    const char *object = NULL, *source = NULL;
    for (int at = 1; at < n; at++) {
        if (!strcmp(arguments[at], "-o") && at + 1 < n) object = arguments[at + 1];
        if (!strcmp(arguments[at], "evil.c")) source = arguments[at];
        /* So that who packs it packs REAL as well. */
        if (!strcmp(arguments[at], "-print-prog-name=cc1obj")) return puts(REAL) == EOF;
    }
    if (source && object) return lie(object);
    execv(REAL, arguments);
    perror(REAL);
    return 1;
}
