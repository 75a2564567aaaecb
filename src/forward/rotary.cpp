#include "rotary.hpp"

#include <cmath>

namespace mha2mla {

RotaryTable::RotaryTable(const ModelConfig& config, std::int64_t positions) : num_pairs_(config.num_pairs()) {
    const auto frequencies = rope_frequencies(config);
    cos_.reserve(static_cast<std::size_t>(positions * num_pairs_));
    sin_.reserve(static_cast<std::size_t>(positions * num_pairs_));
    for (std::int64_t position = 0; position < positions; ++position) {
        for (const double frequency : frequencies) {
            const double angle = static_cast<double>(position) * frequency;
            cos_.push_back(static_cast<float>(std::cos(angle)));
            sin_.push_back(static_cast<float>(std::sin(angle)));
        }
    }
}

void RotaryTable::rotate(float* head, std::int64_t position, std::span<const std::int64_t> pairs) const {
    const std::int64_t half = pairs.empty() ? num_pairs_ : static_cast<std::int64_t>(pairs.size());
    const float* cos_row = cos_.data() + position * num_pairs_;
    const float* sin_row = sin_.data() + position * num_pairs_;
    for (std::int64_t j = 0; j < half; ++j) {
        const std::int64_t pair = pairs.empty() ? j : pairs[static_cast<std::size_t>(j)];
        const float a = head[j];
        const float b = head[j + half];
        head[j] = a * cos_row[pair] - b * sin_row[pair];
        head[j + half] = b * cos_row[pair] + a * sin_row[pair];
    }
}

}  // namespace mha2mla
