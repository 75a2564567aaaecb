#pragma once
#include "attention_target.hpp"

namespace mha2mla {

/// Replaces the output projection by the one with the least squared_loss() of the layer's output, given what the layer
/// mixes, plus a ridge on its change: kRefitRidge of the mean square of what is mixed.
/// @param measure of its `tokens`, all are used. @return output_error() of the layer with it, from the same sums.
double refit_output(LatentLayer& layer, const AttentionTarget& target, const OutputMeasure& measure);
inline constexpr double kRefitRidge = 1e-2;

}  // namespace mha2mla
