/* Somebody who works at a lent desktop: wakes up each 10 ms, and writes by how many microseconds it was late each time.
   usage: wakeups SECONDS */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PERIOD_NS 10000000L

int main(int argc, char **argv) {
    long n_left = argc == 2 ? atol(argv[1]) * 100 : 0;
    struct timespec due, now;
    clock_gettime(CLOCK_MONOTONIC, &due);
    while (n_left-- > 0) {
        due.tv_nsec += PERIOD_NS;
        if (due.tv_nsec >= 1000000000L) {
            due.tv_nsec -= 1000000000L;
            due.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
        printf("%ld\n", (now.tv_sec - due.tv_sec) * 1000000 + (now.tv_nsec - due.tv_nsec) / 1000);
        /* After a long delay it goes on from there, as a program with a timer does. */
        if (now.tv_sec > due.tv_sec)
            due = now;
    }
    return 0;
}
