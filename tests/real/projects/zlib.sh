# C, a configure script of its own and plain make; debug information, position-independent objects beside ordinary ones.
package=zlib
configure() { CC="$launcher gcc" CFLAGS="-O2 -g -Wall -Wextra" ./configure; }
build() { make -j"$jobs"; }
