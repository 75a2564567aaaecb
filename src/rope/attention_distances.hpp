#pragma once
#include "../forward/rotary.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// How much attention each query head pays to keys at a distance of 0, 1, ... tokens, the first token of a sequence
/// left out: it takes what no other key gets, at any distance.
/// @param input normed hidden states of whole sequences, [sequences * seq_len, hidden]. @return [heads, seq_len]
[[nodiscard]] MatrixD attention_distances(const Model& model, std::int64_t layer, const RotaryTable& rotary,
                                          std::int64_t seq_len, const Matrix& input);

}  // namespace mha2mla
