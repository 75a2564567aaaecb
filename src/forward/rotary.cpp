#include "rotary.hpp"

#include <algorithm>
#include <cmath>

#include "for_each_token.hpp"

namespace mha2mla {

RotaryTable::RotaryTable(const ModelConfig& config, std::int64_t positions)
    : RotaryTable(config.rules.layers.front().rotary, positions) {}

RotaryTable::RotaryTable(const RotaryRule& rule, std::int64_t positions)
    : frequencies_(rule.frequencies_at(positions)), interleaved_(rule.interleaved) {
    const auto gain = static_cast<double>(rule.gain);
    cos_.reserve(static_cast<std::size_t>(positions * num_pairs()));
    sin_.reserve(static_cast<std::size_t>(positions * num_pairs()));
    for (std::int64_t position = 0; position < positions; ++position) {
        for (const double frequency : frequencies_) {
            const double angle = static_cast<double>(position) * frequency;
            cos_.push_back(static_cast<float>(gain * std::cos(angle)));
            sin_.push_back(static_cast<float>(gain * std::sin(angle)));
        }
    }
}

void RotaryTable::rotate(float* head, std::int64_t position, std::span<const std::int64_t> pairs, Turn turn) const {
    const std::int64_t half = pairs.empty() ? num_pairs() : static_cast<std::int64_t>(pairs.size());
    const std::int64_t step = interleaved_ ? 2 : 1;      // between first components
    const std::int64_t other = interleaved_ ? 1 : half;  // from a pair's first component to its second
    const float sign = turn == Turn::forward ? 1.0F : -1.0F;
    const float* cos_row = cos_.data() + position * num_pairs();
    const float* sin_row = sin_.data() + position * num_pairs();
    for (std::int64_t j = 0; j < half; ++j) {
        const std::int64_t pair = pairs.empty() ? j : pairs[static_cast<std::size_t>(j)];
        float* first = head + step * j;
        const float a = first[0];
        const float b = first[other];
        const float sine = sign * sin_row[pair];
        first[0] = a * cos_row[pair] - b * sine;
        first[other] = b * cos_row[pair] + a * sine;
    }
}

RotaryTables::RotaryTables(const ModelRules& rules, std::int64_t positions) {
    std::vector<const RotaryRule*> different;
    for (const LayerRules& layer : rules.layers) {
        const auto same = std::find_if(different.begin(), different.end(),
                                       [&](const RotaryRule* rule) { return *rule == layer.rotary; });
        of_layer_.push_back(static_cast<std::size_t>(same - different.begin()));
        if (same != different.end()) continue;
        different.push_back(&layer.rotary);
        tables_.emplace_back(layer.rotary, positions);
    }
}

void rotate_heads(const RotaryTable& rotary, Turn turn, std::int64_t seq_len, std::int64_t tokens, const HeadColumns& x,
                  std::span<const std::vector<std::int64_t>> pairs) {
    if (x.step == 0) return;
    const std::int64_t group = pairs.empty() ? x.heads : x.heads / std::ssize(pairs);
    for_each_token(tokens, [&](std::int64_t token) {
        for (std::int64_t head = 0; head < x.heads; ++head) {
            const auto kept = pairs.empty()
                                  ? std::span<const std::int64_t>()
                                  : std::span<const std::int64_t>(pairs[static_cast<std::size_t>(head / group)]);
            rotary.rotate(x.data + token * x.stride + head * x.step, token % seq_len, kept, turn);
        }
    });
}

}  // namespace mha2mla
