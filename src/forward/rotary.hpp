#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mha2mla/architecture.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// `back` is the transposed rotation: what brings derivatives by rotated numbers to those before.
enum class Turn : std::uint8_t { forward, back };

/// cos and sin of every position and rotary pair, times the rule's gain. [positions, pairs]
class RotaryTable {
public:
    RotaryTable(const RotaryRule& rule, std::int64_t positions);
    RotaryTable(const ModelConfig& config, std::int64_t positions);

    /// Rotates one head's vector in place (RoFormer eq. 34). Hugging Face's rotate_half layout: the first half of
    /// the rotated dims are the pairs' first components, the second half their second; interleaved: one pair after the
    /// other. Dims behind the rotated ones pass.
    /// @param pairs the rotary pair of each component of a half; empty: all, in order.
    void rotate(float* head, std::int64_t position, std::span<const std::int64_t> pairs,
                Turn turn = Turn::forward) const;

    [[nodiscard]] std::int64_t num_pairs() const { return std::ssize(frequencies_); }
    /// Of each pair, radians per token.
    [[nodiscard]] const std::vector<double>& frequencies() const { return frequencies_; }

private:
    std::vector<double> frequencies_;
    bool interleaved_;
    std::vector<float> cos_, sin_;
};

/// The table of each layer; layers with the same rule share one.
class RotaryTables {
public:
    RotaryTables(const ModelRules& rules, std::int64_t positions);
    [[nodiscard]] const RotaryTable& operator[](std::int64_t layer) const {
        return tables_[of_layer_[static_cast<std::size_t>(layer)]];
    }

private:
    std::vector<RotaryTable> tables_;
    std::vector<std::size_t> of_layer_;
};

/// Heads of whole sequences: what rotates of head h of token t lies at data + t * stride + h * step.
struct HeadColumns {
    float* data;
    std::int64_t stride, heads, step;
};

/// Rotates every head of every token in place.
/// @param pairs of each KV head, whose query heads follow each other; empty: all pairs in every head.
void rotate_heads(const RotaryTable& rotary, Turn turn, std::int64_t seq_len, std::int64_t tokens, const HeadColumns& x,
                  std::span<const std::vector<std::int64_t>> pairs = {});

}  // namespace mha2mla
