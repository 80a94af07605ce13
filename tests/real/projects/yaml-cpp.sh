# C++, cmake with compiler launchers; debug information in files of its own. Not optimised: otherwise gcc 12 draws the ids that tie these
# files to their objects from where it was loaded, another place at each run.
package=yaml-cpp
commands=cmake
configure() {
    cmake -S . -B build -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS="-gsplit-dwarf -Wall -Wextra" -DYAML_CPP_BUILD_TESTS=OFF \
        -DCMAKE_C_COMPILER_LAUNCHER="$launcher" -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher"
}
build() { cmake --build build -j "$jobs"; }
