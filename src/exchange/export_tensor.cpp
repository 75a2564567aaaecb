#include "export_tensor.hpp"

#include <algorithm>
#include <utility>

namespace mha2mla {

ExportTensor same_rows(std::string name, const TensorView& tensor, Precision precision, float factor) {
    ExportTensor to{std::move(name), tensor.shape, precision, {&tensor}, 1, nullptr};
    const std::int64_t width = to.row_length();
    to.read = [&tensor, width, factor](std::int64_t first, std::int64_t /*count*/, std::span<float> values) {
        to_finite_float(tensor, static_cast<std::uint64_t>(first * width), values);
        if (factor == 1) return;
        for (float& value : values) value *= factor;
    };
    return to;
}

ExportTensor stacked_rows(std::string name, const TensorView& upper, const TensorView& lower, Precision precision) {
    const std::int64_t width = upper.cols(), above = upper.rows();
    ExportTensor to{std::move(name), {above + lower.rows(), width}, precision, {&upper, &lower}, 1, nullptr};
    to.read = [&upper, &lower, width, above](std::int64_t first, std::int64_t count, std::span<float> values) {
        const std::int64_t of_upper = std::clamp<std::int64_t>(above - first, 0, count);
        const auto split = static_cast<std::size_t>(of_upper * width);
        if (of_upper > 0) to_finite_float(upper, static_cast<std::uint64_t>(first * width), values.first(split));
        if (of_upper == count) return;
        const std::int64_t row = first + of_upper - above;
        to_finite_float(lower, static_cast<std::uint64_t>(row * width), values.subspan(split));
    };
    return to;
}

ExportTensor known_values(std::string name, std::vector<std::int64_t> shape, std::vector<float> values) {
    ExportTensor to{std::move(name), std::move(shape), Precision::f32, {}, 1, nullptr};
    const std::int64_t width = to.row_length();
    to.read = [values = std::move(values), width](std::int64_t first, std::int64_t /*count*/, std::span<float> out) {
        std::copy_n(values.begin() + first * width, out.size(), out.begin());
    };
    return to;
}

std::string block_name(std::int64_t layer, std::string_view name) {
    return "blk." + std::to_string(layer) + "." + std::string(name);
}

namespace {

std::string name_of(const Model& model) {
    std::error_code ignored;
    const auto directory = std::filesystem::weakly_canonical(model.checkpoint.directory(), ignored);
    const std::string name = (directory.has_filename() ? directory : directory.parent_path()).filename().string();
    return name.empty() ? "model" : name;
}

/// A GGUF file has tied embeddings once, also if the checkpoint stores them twice.
bool same_values(const TensorView& a, const TensorView& b) {
    return &a == &b || (a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.data, b.data));
}

}  // namespace

void add_common(const Model& model, std::string_view architecture, BlockType type, ExportContent& content) {
    const ModelConfig& config = model.config;
    GgufMetadata& keys = content.metadata;
    const std::string prefix = std::string(architecture) + ".";
    keys.add("general.architecture", architecture);
    keys.add("general.type", "model");
    keys.add("general.name", std::string_view(name_of(model)));
    keys.add("general.file_type", format_of(type).file_type);
    keys.add("general.quantization_version", std::uint32_t{2});
    keys.add_count(prefix + "context_length", config.max_position_embeddings);
    keys.add_count(prefix + "embedding_length", config.hidden_size);
    keys.add_count(prefix + "block_count", config.num_hidden_layers);
    keys.add_count(prefix + "feed_forward_length", config.intermediate_size);
    keys.add_count(prefix + "vocab_size", config.vocab_size);
    keys.add_count(prefix + "attention.head_count", config.num_attention_heads);
    keys.add_count(prefix + "attention.head_count_kv", 1);
    keys.add(prefix + "attention.layer_norm_rms_epsilon", static_cast<float>(config.rules.final_norm.eps));

    const bool tied = same_values(*model.lm_head, *model.embed_tokens);
    const auto add = [&](ExportTensor tensor) { content.tensors.push_back(std::move(tensor)); };
    add(same_rows("token_embd.weight", *model.embed_tokens, tied ? Precision::head : Precision::matrix));
    add(same_rows("output_norm.weight", *model.norm.weight, Precision::f32));
    if (!tied) add(same_rows("output.weight", *model.lm_head, Precision::head));
    for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
        const LayerView& layer = model.layer(i);
        add(same_rows(block_name(i, "attn_norm.weight"), *layer.attention_norm.weight, Precision::f32));
        add(same_rows(block_name(i, "ffn_norm.weight"), *layer.mlp_norm.weight, Precision::f32));
        add(same_rows(block_name(i, "ffn_gate.weight"), *layer.gate.weight, Precision::matrix));
        add(same_rows(block_name(i, "ffn_up.weight"), *layer.up.weight, Precision::matrix));
        add(same_rows(block_name(i, "ffn_down.weight"), *layer.down.weight, Precision::matrix));
    }
}

}  // namespace mha2mla
