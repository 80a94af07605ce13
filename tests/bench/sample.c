/* Runs a command N times and prints, for each run, wall time and processor time (user and system, of all its processes that were
 * waited for) in microseconds. Starts it by posix_spawn, so that its own size costs the command nothing.
 *
 * usage: sample [-r FILE] N COMMAND [ARGUMENT...]     -r: removes FILE before each run
 */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long long microseconds(struct timeval time) { return time.tv_sec * 1000000LL + time.tv_usec; }

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

int main(int argc, char **argv) {
    const char *removed = NULL;
    int at = 1, failed = 0;
    if (argc > 2 && strcmp(argv[1], "-r") == 0) {
        removed = argv[2];
        at = 3;
    }
    if (argc - at < 2) {
        fprintf(stderr, "usage: sample [-r FILE] N COMMAND [ARGUMENT...]\n");
        return 2;
    }
    long runs = strtol(argv[at++], NULL, 10);
    for (long run = 0; run < runs; run++) {
        struct rusage usage;
        pid_t child;
        int status;
        if (removed) unlink(removed);
        long long started = now();
        int error = posix_spawnp(&child, argv[at], NULL, NULL, argv + at, environ);
        if (error) {
            fprintf(stderr, "sample: %s: %s\n", argv[at], strerror(error));
            return 2;
        }
        if (wait4(child, &status, 0, &usage) != child) return 2;
        long long wall = now() - started;
        if (status != 0) failed = 1;
        printf("%lld %lld\n", wall, microseconds(usage.ru_utime) + microseconds(usage.ru_stime));
    }
    return failed;
}
