#pragma once
#include "../latent/latent_layer.hpp"
#include "surroundings.hpp"

namespace mha2mla {

/// A block whose attention is in MLA form, on its way to being trained; all else is the original's.
struct LatentBlock {
    const Model& model;
    std::int64_t layer;
    const LatentLayer& latent;
    std::int64_t seq_len;
    std::span<const std::int64_t> begins = {};  // see KeptShape::begins
};

/// What a block leaves for the backward pass.
struct BlockActivations : BlockStates {
    LatentActivations attention;
};
void run_block(const LatentBlock& block, BlockActivations& at);

/// Derivatives by the attention's weights. Results do not depend on the threads.
/// @param d_hidden derivative by at.output, turned into that by at.input.
/// @param around where those by the other weights are added. @param output_bias the same for the bias of o_proj, or
/// null.
void differentiate_block(const LatentBlock& block, const BlockActivations& at, Matrix& d_hidden, LatentGradient& to,
                         const SurroundingGradient& around = {}, float* output_bias = nullptr);

}  // namespace mha2mla
