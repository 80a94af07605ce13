#include "probe.h"
#include <complex.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pair_of table[PROBE_WORDS] = {{0.1, 0.2f, 3}};
static _Thread_local int depth;
extern _Thread_local int depth_elsewhere;
_Atomic uint64_t counter;
static jmp_buf back;
__attribute__((weak)) int probe_weak(int x) { return x; }
__attribute__((constructor)) static void at_start(void) { counter = 1; }

/* Frames with arrays of fixed and varying size: where they lie among saved registers is what stack protectors differ in. */
int frames(int n, const char *text) {
    char fixed[40];
    char varying[n + 1];
    int unused;
    snprintf(fixed, sizeof fixed, "%s %d", text, n);
    memset(varying, n, (size_t)n);
    strncpy(varying, fixed, (size_t)n);
    return (int)strlen(varying) + probe_weak(fixed[3]);
}

long long sums(const char *format, ...) {
    va_list list;
    long long sum = 0;
    va_start(list, format);
    for (; *format; format++) {
        switch (*format) {
        case 'i': sum += va_arg(list, int); break;
        case 'l': sum += va_arg(list, long long); break;
        case 'd': sum += (long long)va_arg(list, double); break;
        case 'p': sum += (intptr_t)va_arg(list, void *); break;
        case 's': sum += va_arg(list, struct pair_of).tag; break;
        case 'x': case 'y': case 'z': sum ^= 0x55; break;
        default: sum = -sum;
        }
    }
    va_end(list);
    return sum;
}

/* Folded by the compiler's own arithmetic. */
const double folded[] = {0.1 + 0.2, 1.0 / 3.0, 0x1.fffffffffffffp1023 * 0.5};
double at_run_time(void) { return sin(0.5) + exp(1.25) + pow(2.0, 0.5) + lgamma(3.3) + cbrt(7.7); }
long double widest(long double x) { return sqrtl(x) * 1.1L + fmal(x, x, 0.3L); }
double complex turn(double complex z) { return z * cexp(I * 0.25) / (1.0 + 2.0 * I); }

void scale(float *restrict to, const float *restrict from, int n) {
    for (int i = 0; i < n; i++) to[i] = from[i] * 1.5f + to[i];
}

unsigned mixed(unsigned a, unsigned b) {
    unsigned char narrow = (unsigned char)(a * b);
    signed char sign = (signed char)b;
    char plain = (char)a;
    return (a / 7u) ^ (b % 11u) ^ narrow ^ (unsigned)sign ^ (unsigned)plain ^ (a << (b & 31)) ^ (unsigned)__builtin_popcount(a) ^ (unsigned)__builtin_clz(b | 1);
}

#ifdef __SIZEOF_INT128__
unsigned __int128 wide(unsigned __int128 a, uint64_t b) { return a / b + (a >> 13) * b; }
#endif

int climb(int n) {
    depth += n;
    depth_elsewhere -= n;
    atomic_fetch_add_explicit(&counter, 3, memory_order_acq_rel);
    uint64_t seen = atomic_load(&counter);
    if (atomic_compare_exchange_strong(&counter, &seen, seen + 1) && setjmp(back) == 0 && n > INT_MAX / 2) longjmp(back, errno);
    return depth + (int)offsetof(struct pair_of, tag);
}

static int by_tag(const void *one, const void *other) {
    return ((const struct pair_of *)one)->tag - ((const struct pair_of *)other)->tag;
}

struct pair_of sorted(struct pair_of first, int n) {
    table[n % PROBE_WORDS] = first;
    qsort(table, PROBE_WORDS, sizeof *table, by_tag);
    return table[PROBE_WORDS / 2];
}

int main(int argc, char **argv) {
    float a[64] = {0}, b[64] = {1};
    scale(a, b, argc);
    printf("%s %f %lld %u\n", __FILE__, (double)a[3], sums("ildp", argc, 5LL, 2.5, (void *)argv), mixed((unsigned)argc, 3));
    return frames(argc, argv[0]) + climb(argc) + __LINE__;
}
