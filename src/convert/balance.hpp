#pragma once
#include <vector>

#include "mha2mla/convert.hpp"

namespace mha2mla {

/// The whitened factorisation of a layer with the balance that `options` ask for. For automatic balance several
/// factorisations are run on options.inputs->sample(), and that is taken whose attention is closest to the original's,
/// in the squared error of its output.
/// @param kv, widths as for factorize(). @param pairs that keep RoPE, by KV head.
/// @param balance set to the KvBalance::factor that was used.
/// @throws Error{usage} without moments of this model, Error{numeric}.
[[nodiscard]] KvFactors factorize_balanced(const Model& model, std::int64_t layer,
                                           const std::vector<std::vector<std::int64_t>>& pairs, const Matrix& kv,
                                           const LatentWidths& widths, const ConvertOptions& options, double& balance);

/// What it takes beside the matrix and what factorize() takes.
[[nodiscard]] std::uint64_t balance_bytes(const ModelConfig& config, const ConvertOptions& options);

}  // namespace mha2mla
