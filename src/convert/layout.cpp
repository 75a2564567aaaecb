#include "layout.hpp"

#include <map>
#include <set>

namespace mha2mla {
namespace {

/// The tensors that take the place of one layer's q_proj, k_proj and v_proj.
std::vector<TensorSpec> converted_layer(const Model& source, std::int64_t layer, const ConvertOptions& options) {
    const ModelConfig& config = source.config;
    const AttentionView& view = source.layer(layer).original_attention();
    const auto widths = latent_widths(options.factorization, config.num_key_value_heads, config.head_dim,
                                      options.rope.rope_dim, options.kv_rank);
    const std::int64_t hidden = config.hidden_size;
    const std::int64_t rope_rows = config.num_key_value_heads * options.rope.rope_dim;
    const std::int64_t value_rows = config.num_key_value_heads * config.head_dim;
    const std::int64_t nope_rows = value_rows - rope_rows;
    const Dtype q_dtype = output_dtype(view.q.weight->dtype, options.dtype);
    const Dtype k_dtype = output_dtype(view.k.weight->dtype, options.dtype);
    const Dtype v_dtype = output_dtype(view.v.weight->dtype, options.dtype);
    const LayerNames names(layer);
    std::vector<TensorSpec> specs;
    const auto add = [&](const std::string& name, Dtype dtype, std::int64_t rows, std::int64_t columns,
                         const TensorView* bias) {
        specs.push_back({name + ".weight", dtype, {rows, columns}});
        if (bias != nullptr) specs.push_back({name + ".bias", output_dtype(bias->dtype, options.dtype), {rows}});
    };
    add(names.q, q_dtype, config.num_attention_heads * config.head_dim, hidden, view.q.bias);
    add(names.k_rope, k_dtype, rope_rows, hidden, view.k.bias);
    if (shares_latent(options.factorization)) {
        add(names.down_kv, k_dtype, widths.key, hidden, nullptr);
    } else {
        if (widths.key > 0) add(names.down_k, k_dtype, widths.key, hidden, nullptr);
        if (widths.value > 0) add(names.down_v, v_dtype, widths.value, hidden, nullptr);
    }
    add(names.up_k, k_dtype, nope_rows, widths.key > 0 ? widths.key : hidden, view.k.bias);
    add(names.up_v, v_dtype, value_rows, widths.value > 0 ? widths.value : hidden, view.v.bias);
    if (options.aligned()) {
        const TensorView& o = *view.o.weight;
        specs.push_back({names.o + ".weight", output_dtype(o.dtype, options.dtype), o.shape});
    }
    return specs;
}

}  // namespace

LayerNames::LayerNames(std::int64_t layer) {
    const std::string prefix = layer_prefix(layer) + "self_attn.";
    q = prefix + "q_proj";
    k_rope = prefix + "k_r_proj";
    down_kv = prefix + "kv_proj.down_kv";
    down_k = prefix + "kv_proj.down_k";
    down_v = prefix + "kv_proj.down_v";
    up_k = prefix + "kv_proj.up_k";
    up_v = prefix + "kv_proj.up_v";
    o = prefix + "o_proj";
}

Dtype output_dtype(Dtype source, const std::optional<Dtype>& asked) {
    return asked && is_compute_dtype(source) ? *asked : source;
}

OutputLayout lay_out_conversion(const Model& source, const ConvertOptions& options) {
    // Where the source has a layer's q_proj, the output has all of that layer's new tensors.
    std::map<const TensorView*, std::int64_t> place_of_layer;
    std::set<const TensorView*> replaced;
    for (std::size_t layer = 0; layer < source.layers.size(); ++layer) {
        const AttentionView& view = source.layers[layer].original_attention();
        place_of_layer.emplace(view.q.weight, static_cast<std::int64_t>(layer));
        if (options.aligned()) replaced.insert(view.o.weight);
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
                for (auto& spec : converted_layer(source, place->second, options)) {
                    layout.layers[static_cast<std::size_t>(place->second)].push_back(spec.name);
                    layout.tensors.push_back(std::move(spec));
                }
            }
            if (replaced.contains(&tensor)) continue;
            layout.tensors.push_back({tensor.name, output_dtype(tensor.dtype, options.dtype), tensor.shape});
            layout.copies.push_back(&tensor);
        }
    }
    return layout;
}

}  // namespace mha2mla
