#include <stdint.h>

int a(void) {
    return 1;
}
