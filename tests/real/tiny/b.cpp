#include <string>

extern "C" int b() {
    return std::string("x").size();
}
