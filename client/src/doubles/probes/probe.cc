#include "probe.h"
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace probe {

template <typename T, unsigned N> struct Ring {
    std::array<T, N> slots{};
    unsigned at = 0;
    T &next() { return slots[at++ % N]; }
};

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
};
struct Circle final : Shape {
    double radius;
    explicit Circle(double r) : radius(r) {}
    double area() const override { return radius * radius * 3.14159; }
};
struct Left { virtual int left() { return 1; } virtual ~Left() {} int l = 2; };
struct Both : virtual Left, Shape { int left() override { return l; } double area() const override { return 0.5; } };

static thread_local std::string name = "probe";
std::atomic<int> counted{0};

int thrown(int n) {
    try {
        if (n > 3) throw std::runtime_error("n is " + std::to_string(n));
        return n;
    } catch (const std::exception &error) {
        return static_cast<int>(std::string(error.what()).size());
    }
}

double total(const std::vector<std::unique_ptr<Shape>> &shapes) {
    double sum = 0;
    for (const auto &shape : shapes) sum += shape->area();
#ifndef PLAIN
    if (auto *both = dynamic_cast<Both *>(shapes.front().get())) sum += both->left();
#endif
    return sum;
}

std::map<std::string, std::vector<int>> grouped(const std::vector<std::string> &words) {
    std::map<std::string, std::vector<int>> found;
    int at = 0;
    int unused;
    for (const auto &word : words) found[word.substr(0, 1)].push_back(at++);
    std::for_each(found.begin(), found.end(), [](auto &entry) { std::sort(entry.second.begin(), entry.second.end(), std::greater<int>()); });
    return found;
}

} // namespace probe

int main(int argc, char **argv) {
    std::vector<std::unique_ptr<probe::Shape>> shapes;
    shapes.push_back(std::make_unique<probe::Circle>(argc));
    shapes.push_back(std::make_unique<probe::Both>());
    probe::Ring<long double, PROBE_WORDS> ring;
    ring.next() = std::sqrt(static_cast<long double>(argc));
    probe::counted.fetch_add(1);
    std::printf("%s %f %zu\n", probe::name.c_str(), probe::total(shapes), probe::grouped({argv, argv + argc}).size());
    return probe::thrown(argc);
}
