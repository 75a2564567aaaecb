#include "adam.hpp"

#include <cmath>

#include "../support/parallel.hpp"

namespace mha2mla {
namespace {
constexpr double kFirstDecay = 0.9;
constexpr double kSecondDecay = 0.99;
constexpr float kTiny = 1e-12F;
}  // namespace

Adam::Adam(std::vector<Parameter> parameters) {
    for (Parameter& parameter : parameters) {
        double squares = 0;
        for (const float value : parameter.value) squares += static_cast<double>(value) * static_cast<double>(value);
        const auto size = std::ssize(parameter.value);
        const double mean = size > 0 ? squares / static_cast<double>(size) : 0.0;
        const Vector zeros = Vector::Zero(size);
        moments_.push_back({std::move(parameter), static_cast<float>(std::sqrt(mean)), zeros, zeros});
    }
}

void Adam::step(double rate) {
    ++steps_;
    const auto steps = static_cast<double>(steps_);
    const double correction = std::sqrt(1 - std::pow(kSecondDecay, steps)) / (1 - std::pow(kFirstDecay, steps));
    parallel_for(std::ssize(moments_), [&](std::int64_t i, std::vector<float>&) {
        Moments& m = moments_[static_cast<std::size_t>(i)];
        const Eigen::Map<const Eigen::ArrayXf> g(m.of.gradient.data(), m.first.size());
        Eigen::Map<Eigen::ArrayXf> weight(m.of.value.data(), m.first.size());
        m.first.array() = static_cast<float>(kFirstDecay) * m.first.array() + static_cast<float>(1 - kFirstDecay) * g;
        m.second.array() =
            static_cast<float>(kSecondDecay) * m.second.array() + static_cast<float>(1 - kSecondDecay) * g.square();
        weight -= m.scale * static_cast<float>(rate * correction) * m.first.array() / (m.second.array().sqrt() + kTiny);
    });
}

}  // namespace mha2mla
