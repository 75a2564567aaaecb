#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "mha2mla/convert.hpp"

namespace mha2mla {

/// A tensor of the source, or some rows of one, under its name in the output.
struct CopiedTensor {
    const TensorView* tensor;
    std::string name;
    float factor = 1;  // on its values
};

/// What the output will hold: copies of the source's tensors, and new ones in place of those of the attention.
struct OutputLayout {
    std::vector<TensorSpec> tensors;               // in the order of the source
    std::vector<std::vector<std::string>> layers;  // names of each layer's new tensors
    std::vector<CopiedTensor> copies;              // what passes through
};

/// Names of the attention tensors of one layer that convert() writes itself, without ".weight" or ".bias".
class LayerNames {
public:
    LayerNames(std::int64_t layer, const LatentShape& shape);
    [[nodiscard]] const std::string& of(LatentRole role) const { return names_.at(static_cast<std::size_t>(role)); }

private:
    std::array<std::string, 12> names_;  // by LatentRole; empty where the layout has no such tensor
};

[[nodiscard]] const LinearView& projection(const AttentionView& view, Projection which);

/// dtype of a tensor in the output.
[[nodiscard]] Dtype output_dtype(Dtype source, const std::optional<Dtype>& asked);

/// What the layout of an output depends on, beside its source.
struct OutputForm {
    LatentShape shape;
    bool aligned = false;  // o_proj is new too
    bool biased = false;   // of a layout with its own model_type: whether LatentTensor::biased tensors have a bias
    std::optional<Dtype> dtype;
    /// Of everything that is added to the residual stream. Engines agree on the latent norm's epsilon only where all
    /// norms have kLatentNormEps: transformers always takes it, others take rms_norm_eps. A norm is the same for a
    /// stream that is scaled by s and an epsilon scaled by s².
    float residual_scale = 1;
    LatentNorm latent_norm = LatentNorm::identity;
    /// For the reference implementation: the order in which it wants the weights of norms of queries and keys, those of
    /// what rotates first; empty: as they are.
    std::vector<std::int64_t> norm_order = {};
};

/// @param split that is chosen, or one that may be.
/// @throws Error{unsupported} for a dtype or a bias that the layout has no place for.
[[nodiscard]] OutputForm output_form(const Model& source, const ConversionPlan& plan, const Split& split);

[[nodiscard]] OutputLayout lay_out_conversion(const Model& source, const OutputForm& form);

}  // namespace mha2mla
