#pragma once
/// What stands around attention and MLP in a block, where a family may have no norm before or behind them.

#include "../forward/norm.hpp"

namespace mha2mla {

/// y = norm(x), or x where there is none.
void optional_norm(const NormView& view, const Matrix& x, Matrix& y);
/// Adds to dx, as norm_gradient() does.
void optional_norm_gradient(const NormView& view, const Matrix& x, const Matrix& d_out, Matrix& dx,
                            const NormGradient& to = {});

/// From the derivative by hidden states, to which scale · post(branch) was added, to that by the branch.
[[nodiscard]] Matrix branch_gradient(const NormView& post, float scale, const Matrix& branch, const Matrix& d_hidden,
                                     const NormGradient& to = {});

}  // namespace mha2mla
