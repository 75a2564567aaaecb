#include "layout.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "../latent/layer_tensors.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// The tensors that take the place of one layer's q_proj, k_proj and v_proj.
std::vector<TensorSpec> converted_layer(const Model& source, std::int64_t layer, const OutputForm& form) {
    const AttentionView& view = source.layer(layer).original_attention();
    const LatentLayout& layout = *form.shape.layout;
    const bool own_form = !layout.model_type.empty();  // otherwise biases are where the source has them
    std::vector<TensorSpec> specs;
    for (const LatentTensor& tensor : layout.tensors(form.shape)) {
        const bool output = tensor.role == LatentRole::output;
        if (output && !form.aligned) continue;  // a copy
        const LinearView& from = projection(view, tensor.from);
        const std::string name = layer_prefix(layer) + std::string(tensor.name);
        const Dtype dtype = output_dtype(from.weight->dtype, form.dtype);
        const std::int64_t rows = tensor.stored_rows(form.shape);
        const Shape shape = tensor.columns > 0 ? Shape{rows, tensor.columns} : Shape{rows};
        specs.push_back({name + ".weight", dtype, shape});
        const bool has_bias = own_form ? form.biased : from.bias != nullptr && !output;  // o_proj's is a copy
        if (tensor.biased && has_bias) {
            specs.push_back({name + ".bias", own_form ? dtype : output_dtype(from.bias->dtype, form.dtype), {rows}});
        }
    }
    return specs;
}

bool any_bias(const Model& source, std::initializer_list<LinearView AttentionView::*> of) {
    for (const LayerView& layer : source.layers) {
        for (const auto member : of) {
            if ((layer.original_attention().*member).bias != nullptr) return true;
        }
    }
    return false;
}

/// The order of a norm's weights for a family that norms queries and keys. One order serves all heads there.
std::vector<std::int64_t> reference_norm_order(const ModelConfig& config, const RopeOptions& rope) {
    constexpr std::array<std::string_view, 4> kFamilies = {"llama", "qwen2", "qwen3", "qwen3_moe"};
    if (std::find(kFamilies.begin(), kFamilies.end(), config.model_type) == kFamilies.end()) {
        throw Error(ErrorCode::unsupported, "the reference implementation has no code for model_type '" +
                                                config.model_type +
                                                "', only for llama, qwen2, qwen3 and qwen3_moe; convert without "
                                                "reference-config");
    }
    if (config.rules.layers.front().attention.query_key_norm == QueryKeyNorm::none) return {};
    if (config.rules.layers.front().rotary.gain != 1) {
        throw Error(ErrorCode::unsupported,
                    "the reference implementation norms queries and keys behind the rotation, which has a gain here "
                    "(attention_factor of yarn or longrope); convert without reference-config");
    }
    if (find_rope_strategy(rope.strategy).needs_ranks()) {
        throw Error(ErrorCode::unsupported,
                    "the reference implementation has one order of a norm's weights for all "
                    "heads of model_type '" +
                        config.model_type +
                        "', so that they must keep the same pairs; choose the selection high, "
                        "low or uniform of method mha2mla");
    }
    const auto kept = select_rope(config, rope, nullptr).pairs.front().front();
    std::vector<std::int64_t> order, others;
    for (std::int64_t place = 0; place < config.head_dim; ++place) {
        const bool rotates = std::binary_search(kept.begin(), kept.end(), place % config.num_pairs());
        (rotates ? order : others).push_back(place);
    }
    order.insert(order.end(), others.begin(), others.end());
    return order;
}

/// Names of tensors that hold the rows of two projections of an MLP, for a layout that has one for each, and their
/// layers.
std::map<std::string_view, std::int64_t> fused_mlps(const Model& source, const OutputForm& form) {
    std::map<std::string_view, std::int64_t> layers;
    if (form.shape.layout->model_type.empty() || source.config.names.gate_up.empty()) return layers;
    for (std::size_t layer = 0; layer < source.layers.size(); ++layer) {
        if (const TensorView* gate = source.layers[layer].gate.weight) {
            layers.emplace(gate->name, static_cast<std::int64_t>(layer));
        }
    }
    return layers;
}

/// What is passed on of a tensor. In a layout with a model_type of its own, tied embeddings come as two tensors:
/// engines whose class of that type knows no tying look for both, and others store them once where they are equal. What
/// adds to the residual stream gets its scale; a head that has it too, its inverse in the last norm.
std::vector<CopiedTensor> copies_of(const Model& source, const TensorView& tensor, const OutputForm& form,
                                    const std::map<std::string_view, std::int64_t>& fused) {
    const bool own_form = !form.shape.layout->model_type.empty();
    const float scale = form.residual_scale;
    if (own_form && source.lm_head == source.embed_tokens) {
        if (&tensor == source.embed_tokens) {
            return {{&tensor, "model.embed_tokens.weight", scale}, {&tensor, "lm_head.weight", scale}};
        }
        if (&tensor == source.norm.weight) return {{&tensor, tensor.name, 1 / scale}};
        if (tensor.name == "lm_head.weight") return {};  // the embeddings again
    }
    const auto layer = fused.find(tensor.name);
    if (layer == fused.end()) {
        const bool down = std::any_of(source.layers.begin(), source.layers.end(),
                                      [&](const LayerView& view) { return view.down.weight == &tensor; });
        return {{&tensor, tensor.name, down || &tensor == source.embed_tokens ? scale : 1}};
    }
    const LayerView& view = source.layer(layer->second);
    const std::string prefix = layer_prefix(layer->second);
    return {{view.gate.weight, prefix + "mlp.gate_proj.weight"}, {view.up.weight, prefix + "mlp.up_proj.weight"}};
}

}  // namespace

const LinearView& projection(const AttentionView& view, Projection which) {
    constexpr std::array<LinearView AttentionView::*, 4> kProjections = {&AttentionView::q, &AttentionView::k,
                                                                         &AttentionView::v, &AttentionView::o};
    return view.*kProjections.at(static_cast<std::size_t>(which));
}

LayerNames::LayerNames(std::int64_t layer, const LatentShape& shape) {
    for (const LatentTensor& tensor : shape.layout->tensors(shape)) {
        names_.at(static_cast<std::size_t>(tensor.role)) = layer_prefix(layer) + std::string(tensor.name);
    }
}

Dtype output_dtype(Dtype source, const std::optional<Dtype>& asked) {
    return asked && is_compute_dtype(source) ? *asked : source;
}

OutputForm output_form(const Model& source, const ConversionPlan& plan, const Split& split) {
    OutputForm form{source.config.latent_shape(split.rope_dim, split.kv_rank, plan.factorization(), plan.layout()),
                    plan.aligned() != nullptr, false, plan.dtype};
    if (plan.staged() != nullptr && plan.staged()->query_head_keys) form.shape = form.shape.with_query_head_keys();
    if (plan.reference_config) form.norm_order = reference_norm_order(source.config, plan.rope(split.rope_dim));
    if (plan.layout().model_type.empty()) return form;
    form.latent_norm = plan.aligned()->options.latent_norm;
    const bool folded = plan.aligned()->options.without_bias;
    if (folded && any_bias(source, {&AttentionView::o})) {
        throw Error(ErrorCode::unsupported,
                    "without-bias folds the biases of queries, keys and values, but o_proj has one too");
    }
    form.biased =
        form.latent_norm == LatentNorm::constant ||
        (!folded && any_bias(source, {&AttentionView::q, &AttentionView::k, &AttentionView::v, &AttentionView::o}));
    form.shape.query_rank = query_rank_for_bias(form.shape, !folded && any_bias(source, {&AttentionView::q}));
    const double eps = source.config.rules.final_norm.eps;
    if (std::abs(eps / kLatentNormEps - 1) > 1e-3) {
        form.residual_scale = static_cast<float>(std::sqrt(kLatentNormEps / eps));
    }
    if (source.layers.front().up.bias != nullptr) {
        throw Error(ErrorCode::unsupported, "layout " + std::string(plan.layout().name) +
                                                " has no place for the biases of this model's MLP; choose layout " +
                                                std::string(reference_layout().name));
    }
    const Dtype dtype = output_dtype(source.layers.front().original_attention().k.weight->dtype, plan.dtype);
    const bool tiny = form.latent_norm == LatentNorm::identity ||
                      (form.latent_norm == LatentNorm::trained && form.shape.query_rank > 0);
    if (dtype == Dtype::f16 && tiny) {
        throw Error(ErrorCode::unsupported, "layout " + std::string(plan.layout().name) +
                                                " holds numbers of about 2^-30, which F16 has not; choose latent-norm "
                                                "constant, BF16 or F32 as the dtype, or "
                                                "layout " +
                                                std::string(reference_layout().name));
    }
    return form;
}

OutputLayout lay_out_conversion(const Model& source, const OutputForm& form) {
    // Where the source has a layer's q_proj, the output has all of that layer's new tensors.
    // By name: q_proj, k_proj and v_proj may be parts of one tensor.
    std::map<std::string_view, std::int64_t> place_of_layer;
    std::set<std::string_view> replaced;
    for (std::size_t layer = 0; layer < source.layers.size(); ++layer) {
        const AttentionView& view = source.layers[layer].original_attention();
        place_of_layer.emplace(view.q.weight->name, static_cast<std::int64_t>(layer));
        if (form.aligned) replaced.insert(view.o.weight->name);
        if (form.biased && view.o.bias != nullptr) replaced.insert(view.o.bias->name);
        for (const LinearView* linear : {&view.q, &view.k, &view.v}) {
            replaced.insert(linear->weight->name);
            if (linear->bias != nullptr) replaced.insert(linear->bias->name);
        }
    }
    const std::map<std::string_view, std::int64_t> fused = fused_mlps(source, form);
    OutputLayout layout;
    layout.layers.resize(source.layers.size());
    for (const auto& file : source.checkpoint.files()) {
        for (const auto& tensor : file.tensors()) {
            if (const auto place = place_of_layer.find(tensor.name); place != place_of_layer.end()) {
                for (auto& spec : converted_layer(source, place->second, form)) {
                    layout.layers[static_cast<std::size_t>(place->second)].push_back(spec.name);
                    layout.tensors.push_back(std::move(spec));
                }
            }
            if (replaced.contains(tensor.name) || source.is_unused(tensor.name)) continue;
            for (CopiedTensor& copy : copies_of(source, tensor, form, fused)) {
                layout.tensors.push_back({copy.name, output_dtype(tensor.dtype, form.dtype), copy.tensor->shape});
                layout.copies.push_back(std::move(copy));
            }
        }
    }
    return layout;
}

}  // namespace mha2mla
