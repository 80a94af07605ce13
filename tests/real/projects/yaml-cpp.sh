# C++, cmake with compiler launchers; debug information in files of its own.
package=yaml-cpp
commands=cmake
configure() {
    cmake -S . -B build -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS="-gsplit-dwarf -Wall -Wextra" -DYAML_CPP_BUILD_TESTS=OFF \
        -DCMAKE_C_COMPILER_LAUNCHER="$launcher" -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher"
}
build() { cmake --build build -j "$jobs"; }
