#include "layout.hpp"

#include <array>
#include <map>
#include <set>

namespace mha2mla {
namespace {

/// The tensors that take the place of one layer's q_proj, k_proj and v_proj.
std::vector<TensorSpec> converted_layer(const Model& source, std::int64_t layer, const OutputForm& form) {
    const AttentionView& view = source.layer(layer).original_attention();
    std::vector<TensorSpec> specs;
    for (const LatentTensor& tensor : reference_layout().tensors(form.shape)) {
        const bool output = tensor.role == LatentRole::output;
        if (output && !form.aligned) continue;  // a copy, as its bias always is
        const LinearView& from = projection(view, tensor.from);
        const std::string name = layer_prefix(layer) + std::string(tensor.name);
        specs.push_back(
            {name + ".weight", output_dtype(from.weight->dtype, form.dtype), {tensor.rows, tensor.columns}});
        if (tensor.biased && from.bias != nullptr && !output) {
            specs.push_back({name + ".bias", output_dtype(from.bias->dtype, form.dtype), {tensor.rows}});
        }
    }
    return specs;
}

}  // namespace

const LinearView& projection(const AttentionView& view, Projection which) {
    constexpr std::array<LinearView AttentionView::*, 4> kProjections = {&AttentionView::q, &AttentionView::k,
                                                                         &AttentionView::v, &AttentionView::o};
    return view.*kProjections.at(static_cast<std::size_t>(which));
}

LayerNames::LayerNames(std::int64_t layer, const LatentShape& shape) {
    for (const LatentTensor& tensor : reference_layout().tensors(shape)) {
        names_.at(static_cast<std::size_t>(tensor.role)) = layer_prefix(layer) + std::string(tensor.name);
    }
}

Dtype output_dtype(Dtype source, const std::optional<Dtype>& asked) {
    return asked && is_compute_dtype(source) ? *asked : source;
}

OutputForm output_form(const ModelConfig& config, const ConversionPlan& plan, const Split& split) {
    return {config.latent_shape(split.rope_dim, split.kv_rank, plan.factorization()), plan.aligned() != nullptr,
            plan.dtype};
}

OutputLayout lay_out_conversion(const Model& source, const OutputForm& form) {
    // Where the source has a layer's q_proj, the output has all of that layer's new tensors.
    std::map<const TensorView*, std::int64_t> place_of_layer;
    std::set<const TensorView*> replaced;
    for (std::size_t layer = 0; layer < source.layers.size(); ++layer) {
        const AttentionView& view = source.layers[layer].original_attention();
        place_of_layer.emplace(view.q.weight, static_cast<std::int64_t>(layer));
        if (form.aligned) replaced.insert(view.o.weight);
        for (const LinearView* linear : {&view.q, &view.k, &view.v}) {
            replaced.insert(linear->weight);
            if (linear->bias != nullptr) replaced.insert(linear->bias);
        }
    }
    OutputLayout layout;
    layout.layers.resize(source.layers.size());
    for (const auto& file : source.checkpoint.files()) {
        for (const auto& tensor : file.tensors()) {
            if (const auto place = place_of_layer.find(&tensor); place != place_of_layer.end()) {
                for (auto& spec : converted_layer(source, place->second, form)) {
                    layout.layers[static_cast<std::size_t>(place->second)].push_back(spec.name);
                    layout.tensors.push_back(std::move(spec));
                }
            }
            if (replaced.contains(&tensor)) continue;
            layout.tensors.push_back({tensor.name, output_dtype(tensor.dtype, form.dtype), tensor.shape});
            layout.copies.push_back(&tensor);
        }
    }
    return layout;
}

}  // namespace mha2mla
