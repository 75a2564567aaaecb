// Architecture deepseek2 of llama.cpp: the projections of layout `deepseek` as they are, but for kv_b, whose keys are
// transposed per head because queries are multiplied with them.
#include <cmath>

#include "export_tensor.hpp"
#include "latent_norm.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {
namespace {

/// θ of θ^(−2k/d); nothing if the frequencies are others.
std::optional<double> base_of(const RotaryRule& rotary) {
    const std::vector<double>& frequencies = rotary.frequencies;
    if (rotary.gain != 1 || rotary.trained_length != 0 || frequencies.empty()) return std::nullopt;
    const auto pairs = static_cast<double>(frequencies.size());
    const double base = frequencies.size() == 1 ? 10000.0 : std::pow(frequencies[1], -pairs);
    for (std::size_t k = 0; k < frequencies.size(); ++k) {
        const double expected = std::pow(base, -static_cast<double>(k) / pairs);
        if (std::abs(frequencies[k] - expected) > 1e-9 * expected) return std::nullopt;
    }
    return base;
}

[[noreturn]] void refuse_in_mla(const Model& model, const std::string& what) {
    // The other form has a place for it, but not for a norm that is more than a constant.
    const bool other_form = has_tiny_latent(model.layer(0).latent_attention().latent_norm);
    throw Error(ErrorCode::unsupported,
                model.checkpoint.directory().string() + ": " + what +
                    ", which llama.cpp's architecture deepseek2 has no place for",
                other_form ? Remedy::form_mqa : Remedy::none);
}

double rope_base(const Model& model) {
    const RotaryRule& rotary = model.rules(0).rotary;
    const std::optional<double> base = base_of(rotary);
    if (!base) refuse_in_mla(model, "config.json scales the rotary frequencies (rope_type of rope_parameters)");
    if (!rotary.interleaved) {
        throw Error(ErrorCode::unsupported,
                    model.checkpoint.directory().string() + ": rope_interleave false in config.json is not supported");
    }
    return *base;
}

void refuse_biases(const Model& model, const LatentAttentionView& view) {
    if (view.q_down.weight != nullptr) {
        refuse_in_mla(model, view.q_down.bias != nullptr
                                 ? "the queries have a bias ('" + view.q_down.bias->name + "')"
                                 : "the queries have a latent ('" + view.q_down.weight->name + "')");
    }
    for (const LinearView* linear : {&view.q, &view.down_k, &view.k_rope, &view.up_k, &view.o}) {
        if (linear->bias != nullptr) refuse_in_mla(model, "there is a bias, '" + linear->bias->name + "'");
    }
}

/// [heads, kv_rank, nope] of keys, or [heads, head_dim, kv_rank] of values.
ExportTensor up_projection(std::string name, const TensorView& up, const HeadRows& at, const LatentShape& shape,
                           bool keys) {
    const std::int64_t rank = shape.kv_rank, dim = keys ? shape.nope_dim() : shape.head_dim;
    ExportTensor to{std::move(name),   {shape.num_heads, keys ? rank : dim, keys ? dim : rank},
                    Precision::matrix, {&up},
                    keys ? rank : dim, nullptr};
    to.read = [=, &up, step = to.step](std::int64_t first, std::int64_t count, std::span<float> values) {
        std::vector<float> head(static_cast<std::size_t>(dim * rank));
        for (std::int64_t h = 0; h < count / step; ++h) {
            const std::int64_t row = at.first + (first / step + h) * at.stride;
            to_finite_float(up, static_cast<std::uint64_t>(row * rank), head);
            const auto out = values.subspan(static_cast<std::size_t>(h * dim * rank), head.size());
            const Eigen::Map<const Matrix> from(head.data(), dim, rank);
            if (keys) {
                Eigen::Map<Matrix>(out.data(), rank, dim) = from.transpose();
            } else {
                Eigen::Map<Matrix>(out.data(), dim, rank) = from;
            }
        }
    };
    return to;
}

/// What the norm's weight is multiplied by, see export_gguf.
float norm_factor(const Model& model, const NormView& norm, bool tiny) {
    const double eps = model.config.rules.final_norm.eps;
    if (eps == norm.rule.eps) return 1;
    if (tiny) return static_cast<float>(std::sqrt(eps / norm.rule.eps));
    throw Error(ErrorCode::unsupported,
                norm.weight->file + ": llama.cpp gives '" + norm.weight->name +
                    "' the rms_norm_eps of config.json instead of 1e-6, which would change what the model computes");
}

}  // namespace

void add_mla_attention(const Model& model, ExportContent& content) {
    const LatentShape shape = model.config.latent_shape();
    const LatentRows rows = shape.layout->rows(shape);
    GgufMetadata& keys = content.metadata;
    const auto count = [&](const std::string& key, std::int64_t value) { keys.add_count("deepseek2." + key, value); };
    count("attention.key_length", shape.kv_rank + shape.rope_dim);
    count("attention.value_length", shape.kv_rank);
    count("attention.key_length_mla", shape.nope_dim() + shape.rope_dim);
    count("attention.value_length_mla", shape.head_dim);
    count("attention.kv_lora_rank", shape.kv_rank);
    count("attention.q_lora_rank", 0);
    count("rope.dimension_count", shape.rope_dim);
    keys.add("deepseek2.rope.freq_base", static_cast<float>(rope_base(model)));
    // No experts: every layer is one of the leading dense ones.
    count("leading_dense_block_count", model.config.num_hidden_layers);
    for (const char* key : {"expert_count", "expert_used_count", "expert_shared_count"}) count(key, 0);
    count("expert_feed_forward_length", model.config.intermediate_size);
    keys.add("deepseek2.expert_weights_scale", 1.0F);
    content.cached_numbers = model.config.num_hidden_layers * (shape.kv_rank + shape.rope_dim);

    for (std::int64_t i = 0; i < model.config.num_hidden_layers; ++i) {
        const LatentAttentionView& view = model.layer(i).latent_attention();
        refuse_biases(model, view);
        const auto add = [&](ExportTensor tensor) { content.tensors.push_back(std::move(tensor)); };
        const bool tiny = has_tiny_latent(view.latent_norm);
        add(same_rows(block_name(i, "attn_q.weight"), *view.q.weight, Precision::matrix));
        add(stacked_rows(block_name(i, "attn_kv_a_mqa.weight"), *view.down_k.weight, *view.k_rope.weight,
                         tiny ? Precision::tiny : Precision::matrix));
        add(same_rows(block_name(i, "attn_kv_a_norm.weight"), *view.latent_norm.weight, Precision::f32,
                      norm_factor(model, view.latent_norm, tiny)));
        add(up_projection(block_name(i, "attn_k_b.weight"), *view.up_k.weight, rows.up_key, shape, true));
        add(up_projection(block_name(i, "attn_v_b.weight"), *view.up_v.weight, rows.up_value, shape, false));
        add(same_rows(block_name(i, "attn_output.weight"), *view.o.weight, Precision::matrix));
    }
}

}  // namespace mha2mla
