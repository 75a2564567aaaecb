#include <algorithm>
#include <cmath>
#include <numeric>

#include "mha2mla/error.hpp"
#include "mha2mla/generate.hpp"

namespace mha2mla {

Sampler::Sampler(const SamplingOptions& options) : options_(options), state_(options.seed) {
    if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
        throw Error(ErrorCode::usage, "temperature must be 0 (greedy) or more");
    }
    if (options.top_k < 0) throw Error(ErrorCode::usage, "top-k must be 0 (all) or more");
    if (!(options.top_p > 0 && options.top_p <= 1)) {
        throw Error(ErrorCode::usage, "top-p must be more than 0 and at most 1");
    }
}

/// SplitMix64 (Steele et al., 2014). The distributions of the standard library differ between implementations.
double Sampler::uniform() {
    state_ += 0x9E3779B97F4A7C15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return static_cast<double>((z ^ (z >> 31U)) >> 11U) * 0x1p-53;
}

TokenId Sampler::next(std::span<const float> logits) {
    if (std::any_of(logits.begin(), logits.end(), [](float value) { return std::isnan(value); })) {
        throw Error(ErrorCode::numeric, "a logit is not a number; the checkpoint holds NaN or infinite weights");
    }
    const auto top = std::max_element(logits.begin(), logits.end());
    if (options_.temperature == 0) return static_cast<TokenId>(top - logits.begin());
    std::vector<TokenId> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    const auto likelier = [&](TokenId a, TokenId b) {
        const float x = logits[static_cast<std::size_t>(a)];
        const float y = logits[static_cast<std::size_t>(b)];
        return x > y || (x == y && a < b);
    };
    std::size_t kept = order.size();
    if (options_.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(options_.top_k));
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(), likelier);
    std::vector<double> weights(kept);
    for (std::size_t i = 0; i < kept; ++i) {
        weights[i] =
            std::exp((static_cast<double>(logits[static_cast<std::size_t>(order[i])]) - *top) / options_.temperature);
    }
    double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    double sum = 0;
    for (std::size_t i = 0; i < kept; ++i) {
        sum += weights[i];
        if (sum >= options_.top_p * total) {
            kept = i + 1;
            total = sum;
            break;
        }
    }
    const double target = uniform() * total;
    sum = 0;
    for (std::size_t i = 0; i + 1 < kept; ++i) {
        sum += weights[i];
        if (target < sum) return order[i];
    }
    return order[kept - 1];
}

}  // namespace mha2mla
