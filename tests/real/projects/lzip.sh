# C++, a configure script of its own and plain make; -O3 -g.
package=lzip
configure() { ./configure CXX="$launcher g++" CXXFLAGS="-O3 -g -Wall -Wextra"; }
build() { make -j"$jobs"; }
