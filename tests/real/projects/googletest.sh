# C++, cmake with clang and compiler launchers; unoptimised with debug information.
package=googletest
commands=cmake
configure() {
    cmake -S . -B build -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_C_COMPILER=clang \
        -DCMAKE_C_COMPILER_LAUNCHER="$launcher" -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" -Dgtest_build_samples=ON
}
build() { cmake --build build -j "$jobs"; }
