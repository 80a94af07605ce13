# C, autotools with libtool; coverage, with a seed: without, gcc stamps notes and objects with the time.
package=xz-utils
configure() { ./configure --disable-nls --disable-doc CC="$launcher gcc" CFLAGS="-O1 -g --coverage -frandom-seed=xz"; }
build() { make -j"$jobs"; }
