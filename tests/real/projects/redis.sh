# C, plain make over several subprojects; -O2 -g3, dependency files, a build id that differs at each build.
package=redis
configure() { :; }
build() { make -j"$jobs" CC="$launcher gcc" MALLOC=libc OPTIMIZATION=-O2 DEBUG=-g3; }
