# C, plain make without a configure step; link-time optimisation, with a seed: without, gcc's objects differ at each run.
package=lua5.4
configure() { :; }
build() { make -j"$jobs" linux CC="$launcher gcc -std=gnu99" MYCFLAGS="-flto -frandom-seed=lua -g" MYLDFLAGS="-flto"; }
