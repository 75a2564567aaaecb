#pragma once
#include <span>
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
    Matrix scores, weights;                        // of all experts, and 0 but for the chosen; [tokens, experts]
    Matrix gate;                                   // [tokens, 1], of the shared expert
    std::vector<std::vector<RoutedToken>> routed;  // [experts]
    Matrix rows, output;                           // of the tokens of one expert
};
/// Floats of it for each token, but for those of MlpWorkspace.
[[nodiscard]] std::int64_t mixture_scratch(const MixtureRule& rule, std::int64_t hidden);

[[nodiscard]] float sigmoid(float x);

/// Chooses the experts of each token: to[e] becomes the tokens that go through expert e, in ascending order.
/// @param scores the router's logits, [tokens, experts], which become scores. @param correction [experts], or empty.
/// @param weights set to those of RoutedToken, 0 where an expert is not chosen.
void route(const MixtureRule& rule, std::span<const float> correction, Matrix& scores, Matrix& weights,
           std::vector<std::vector<RoutedToken>>& to);
/// route() of what the router says: sets scores, weights and routed.
void choose_experts(const MixtureRule& rule, const MixtureView& view, const Matrix& x, MixtureWorkspace& work);
/// rows = x's rows of these tokens.
void gather_tokens(const Matrix& x, std::span<const RoutedToken> tokens, Matrix& rows);

/// See MixtureRule. Each expert runs once, over all tokens that chose it; weights of others are not read.
/// @param x, out [tokens, hidden]
void mixture(const MlpRule& rule, const MixtureView& view, const Matrix& x, MixtureWorkspace& work, Matrix& out);

/// Derivatives by a mixture's weights; null members: not computed. The correction of scores only chooses and has none.
struct MixtureGradient {
    LinearGradient router;
    std::vector<MlpGradient> experts;  // of each, or empty
    MlpGradient shared;
    LinearGradient shared_gate;
};
/// Which experts a token goes through is taken as given. What they computed is computed again, one expert at a time, so
/// that nothing of the forward pass need be kept.
/// @param x what mixture() read. @param d_out [tokens, hidden]. @param dx set to the derivative by x.
void mixture_gradient(const MlpRule& rule, const MixtureView& view, const Matrix& x, const Matrix& d_out, Matrix& dx,
                      const MixtureGradient& to = {});

}  // namespace mha2mla
