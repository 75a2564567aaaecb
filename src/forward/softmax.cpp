#include "softmax.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

#include "../linalg/elementwise.hpp"

namespace mha2mla {
namespace {
constexpr float kNothing = -std::numeric_limits<float>::infinity();
}

void soft_cap(float cap, std::int64_t count, float* x) {
    for (std::int64_t i = 0; i < count; ++i) x[i] = cap * std::tanh(x[i] / cap);
}

void soft_cap_gradient(float cap, std::int64_t count, const float* capped, float* d) {
    for (std::int64_t i = 0; i < count; ++i) {
        const float share = capped[i] / cap;
        d[i] *= 1 - share * share;
    }
}

float attention_weights(const AttentionRule& rule, std::int64_t position, float* logits) {
    const std::int64_t first = first_visible(rule, position);
    const std::int64_t count = position + 1 - first;
    std::fill(logits, logits + first, 0.0F);
    if (rule.softcap > 0) soft_cap(rule.softcap, count, logits + first);
    float maximum = kNothing;
    float sum = 0;
    softmax_piece(logits + first, count, maximum, sum);
    return sum;
}

void causal_softmax(const AttentionRule& rule, std::int64_t seq_len, float* logits,
                    std::span<const std::int64_t> begins) {
    for (std::int64_t t = 0; t < seq_len; ++t) {
        float* row = logits + t * seq_len;
        const std::int64_t begin = begins.empty() ? 0 : begins[static_cast<std::size_t>(t)];
        float* seen = row + begin;
        std::fill(row, seen, 0.0F);
        const float share = 1.0F / attention_weights(rule, t - begin, seen);
        for (std::int64_t s = first_visible(rule, t - begin); s <= t - begin; ++s) seen[s] *= share;
        std::fill(row + t + 1, row + seq_len, 0.0F);
    }
}

void causal_softmax_gradient(const AttentionRule& rule, std::int64_t seq_len, const float* probabilities, float* d) {
    for (std::int64_t t = 0; t < seq_len; ++t) {
        const float* p = probabilities + t * seq_len;
        float* row = d + t * seq_len;
        double mean = 0;
        for (std::int64_t s = first_visible(rule, t); s <= t; ++s) mean += static_cast<double>(p[s]) * row[s];
        for (std::int64_t s = 0; s <= t; ++s) row[s] = p[s] * (row[s] - static_cast<float>(mean));
        std::fill(row + t + 1, row + seq_len, 0.0F);
    }
}

double softmax(float* logits, std::int64_t count) {
    float maximum = kNothing;
    float sum = 0;
    softmax_piece(logits, count, maximum, sum);
    Eigen::Map<Eigen::ArrayXf>(logits, count) /= sum;
    return static_cast<double>(maximum) + std::log(static_cast<double>(sum));
}

}  // namespace mha2mla
