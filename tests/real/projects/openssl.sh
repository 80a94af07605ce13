# C and assembler, a Perl configure script; large (900 objects), so only when named.
package=openssl
configure() { CC="$launcher gcc" ./Configure no-tests --debug; }
build() { make -j"$jobs"; }
