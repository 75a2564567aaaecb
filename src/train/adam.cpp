#include "adam.hpp"

#include <cmath>

#include "../support/parallel.hpp"

namespace mha2mla {
namespace {
constexpr double kFirstDecay = 0.9;
constexpr double kSecondDecay = 0.99;
constexpr float kTiny = 1e-12F;
}  // namespace

Adam::Adam(LatentWeights& weights) {
    for (Matrix* weight : matrices(weights)) {
        const double mean = weight->size() > 0 ? weight->cast<double>().squaredNorm() / double(weight->size()) : 0.0;
        const Matrix zeros = Matrix::Zero(weight->rows(), weight->cols());
        moments_.push_back({weight, static_cast<float>(std::sqrt(mean)), zeros, zeros});
    }
}

void Adam::step(LatentWeights& gradient, double rate) {
    ++steps_;
    const auto steps = static_cast<double>(steps_);
    const double correction = std::sqrt(1 - std::pow(kSecondDecay, steps)) / (1 - std::pow(kFirstDecay, steps));
    const auto gradients = matrices(gradient);
    parallel_for(static_cast<std::int64_t>(gradients.size()), [&](std::int64_t i, std::vector<float>&) {
        Moments& m = moments_[static_cast<std::size_t>(i)];
        const auto& g = gradients[static_cast<std::size_t>(i)]->array();
        m.first.array() = static_cast<float>(kFirstDecay) * m.first.array() + static_cast<float>(1 - kFirstDecay) * g;
        m.second.array() =
            static_cast<float>(kSecondDecay) * m.second.array() + static_cast<float>(1 - kSecondDecay) * g.square();
        m.weight->array() -=
            m.scale * static_cast<float>(rate * correction) * m.first.array() / (m.second.array().sqrt() + kTiny);
    });
}

}  // namespace mha2mla
