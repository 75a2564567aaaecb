#include "mha2mla/plan.hpp"

#include <algorithm>
#include <string>

#include "../latent/layer_tensors.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// Parameters of a linear map with or without bias.
std::int64_t linear_parameters(std::int64_t out, std::int64_t in, bool bias) { return out * in + (bias ? out : 0); }

/// Of the MLP of a layer: what is stored, not what a token goes through.
std::int64_t mlp_parameters(const ModelConfig& c, const MlpRule& rule) {
    const auto of_width = [&](std::int64_t width, bool bias) {
        return 2 * linear_parameters(width, c.hidden_size, bias) + linear_parameters(c.hidden_size, width, bias);
    };
    const MixtureRule& mixture = rule.mixture;
    if (mixture.experts == 0) return of_width(c.intermediate_size, rule.bias);
    const std::int64_t router = mixture.experts * c.hidden_size + (mixture.corrected ? mixture.experts : 0);
    const std::int64_t shared = mixture.shared_width == 0 ? 0
                                                          : of_width(mixture.shared_width, rule.bias) +
                                                                (mixture.shared_gate ? c.hidden_size : 0);
    return router + mixture.experts * of_width(mixture.width, false) + shared;
}

std::int64_t original_parameters(const ModelConfig& c) {
    const std::int64_t query = c.num_attention_heads * c.head_dim;
    const std::int64_t kv = c.num_key_value_heads * c.head_dim;
    const LayerRules& rules = c.rules.layers.front();  // of all layers, where attention converts
    const std::int64_t attention = linear_parameters(query, c.hidden_size, rules.attention.qkv_bias) +
                                   2 * linear_parameters(kv, c.hidden_size, rules.attention.qkv_bias) +
                                   linear_parameters(c.hidden_size, query, rules.attention.o_bias);
    std::int64_t sum = (c.tie_word_embeddings ? 1 : 2) * c.vocab_size * c.hidden_size + c.hidden_size;
    for (const LayerRules& layer : c.rules.layers) sum += attention + mlp_parameters(c, layer.mlp) + 2 * c.hidden_size;
    return sum;
}

/// Weights of a layer's attention. Biases keep their number.
std::int64_t attention_weights(const LatentShape& shape) {
    std::int64_t sum = 0;
    for (const LatentTensor& tensor : shape.layout->tensors(shape)) {
        sum += tensor.stored_rows(shape) * std::max<std::int64_t>(1, tensor.columns);
    }
    return sum;
}

[[noreturn]] void refuse_rank(const std::string& what, std::int64_t asked, std::int64_t largest) {
    throw Error(ErrorCode::usage, "kv-rank " + std::to_string(asked) + " is not possible for " + what +
                                      "; choose at most " + std::to_string(largest));
}

LatentShape shape_of(const ModelConfig& c, const PlanOptions& options) {
    const LatentShape shape = c.latent_shape(options.rope_dim, options.kv_rank, options.factorization, *options.layout);
    return options.query_head_keys ? shape.with_query_head_keys() : shape;
}

void check_options(const ModelConfig& c, const PlanOptions& options) {
    if (c.latent) {
        throw Error(ErrorCode::usage,
                    "the checkpoint is already converted to MLA, or was MLA from the start; start from an original "
                    "that is not");
    }
    const bool shared = options.layout->shared_rope_key;
    const std::int64_t widest = shared ? c.num_key_value_heads * c.head_dim : c.head_dim;
    if (options.rope_dim < (shared ? 2 : 0) || options.rope_dim > widest || options.rope_dim % 2 != 0) {
        throw Error(ErrorCode::usage, "rope-dim must be even and from " +
                                          std::string(shared ? "2 to the keys' dimensions (" : "0 to head_dim (") +
                                          std::to_string(widest) + "), not " + std::to_string(options.rope_dim));
    }
    if (options.kv_rank < 1) throw Error(ErrorCode::usage, "kv-rank must be at least 1");
    const FactorizationRow& row = row_of(options.factorization);
    if (row.halves_rank() && options.kv_rank % 2 != 0) {
        throw Error(ErrorCode::usage, "kv-rank must be even for split SVD, half for keys and half for values");
    }
    const auto largest = shape_of(c, options).largest_kv_rank();
    if (largest && !options.padded && options.kv_rank > *largest)
        refuse_rank(std::string(row.name) + " SVD", options.kv_rank, *largest);
}

}  // namespace

std::int64_t default_rope_dim(const ModelConfig& config) { return std::max<std::int64_t>(2, config.head_dim / 16 * 2); }

std::int64_t default_kv_rank(const ModelConfig& config) { return config.head_dim / 2; }

Plan plan_conversion(const ModelConfig& config, const PlanOptions& options) {
    check_options(config, options);
    LatentShape shape = shape_of(config, options);
    const bool own_form = !options.layout->model_type.empty();
    shape.query_rank = own_form ? query_rank_for_bias(shape, config.rules.layers.front().attention.qkv_bias) : 0;
    const AttentionShape original = config.attention_shape();
    const std::int64_t before = 2 * (original.query_rows() + original.value_rows()) * original.hidden;
    Plan plan;
    plan.parameters_original = original_parameters(config);
    plan.parameters_converted =
        plan.parameters_original + config.num_hidden_layers * (attention_weights(shape) - before);
    // Tied embeddings are two tensors there.
    if (own_form && config.tie_word_embeddings) plan.parameters_converted += config.vocab_size * config.hidden_size;
    plan.latent_width = shape.widths().cached;
    plan.original_numbers_per_token = cache_numbers_per_token(config);
    plan.converted_numbers_per_token = config.num_hidden_layers * shape.cached_numbers();
    plan.original_bytes_per_token = static_cast<double>(plan.original_numbers_per_token) * 2;
    plan.converted_bytes_per_token = static_cast<double>(plan.converted_numbers_per_token) * options.kv_bits / 8;
    return plan;
}

std::int64_t cache_numbers_per_token(const ModelConfig& config) {
    if (!config.latent) return config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim;
    return config.num_hidden_layers * config.latent_shape().cached_numbers();
}

}  // namespace mha2mla
