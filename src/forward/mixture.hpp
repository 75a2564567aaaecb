#pragma once
#include <vector>

#include "mlp.hpp"

namespace mha2mla {

/// A token that goes through an expert, and what the expert's output is multiplied by.
struct RoutedToken {
    std::int64_t token;
    float weight;
};

/// Buffers of mixture(), reused from block to block.
struct MixtureWorkspace {
    MlpWorkspace mlp;
    Matrix scores;                                 // [tokens, experts]
    Matrix gate;                                   // [tokens, 1], of the shared expert
    std::vector<std::vector<RoutedToken>> routed;  // [experts]
    Matrix rows, output;                           // of the tokens of one expert
};
/// Floats of it for each token, but for those of MlpWorkspace.
[[nodiscard]] std::int64_t mixture_scratch(const MixtureRule& rule, std::int64_t hidden);

/// Chooses the experts of each token: to[e] becomes the tokens that go through expert e, in ascending order.
/// @param scores the router's logits, [tokens, experts]; changed on the way. @param correction [experts], or empty.
void route(const MixtureRule& rule, std::span<const float> correction, Matrix& scores,
           std::vector<std::vector<RoutedToken>>& to);

/// See MixtureRule. Each expert runs once, over all tokens that chose it; weights of others are not read.
/// @param x, out [tokens, hidden]
void mixture(const MlpRule& rule, const MixtureView& view, const Matrix& x, MixtureWorkspace& work, Matrix& out);

}  // namespace mha2mla
