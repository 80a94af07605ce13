# C, plain make; clang with thin link-time optimisation.
package=lz4
configure() { :; }
build() { make -j"$jobs" -C programs lz4 CC="$launcher clang" CFLAGS="-O2 -g -flto=thin -Wall -Wextra" LDFLAGS=-flto=thin; }
