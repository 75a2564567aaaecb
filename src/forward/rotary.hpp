#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mha2mla/model.hpp"

namespace mha2mla {

/// cos and sin of every position and rotary pair. [positions, head_dim/2]
class RotaryTable {
public:
    RotaryTable(const ModelConfig& config, std::int64_t positions);

    /// Rotates one head's vector in place (RoFormer eq. 34, Hugging Face's rotate_half layout): the first half of
    /// `head` are the pairs' first components, the second half their second.
    /// @param pairs the rotary pair of each component of a half; empty: all, in order.
    void rotate(float* head, std::int64_t position, std::span<const std::int64_t> pairs) const;

private:
    std::int64_t num_pairs_;
    std::vector<float> cos_, sin_;
};

}  // namespace mha2mla
