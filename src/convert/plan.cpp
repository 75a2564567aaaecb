#include "mha2mla/plan.hpp"

#include <algorithm>
#include <string>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// Parameters of a linear map with or without bias.
std::int64_t linear_parameters(std::int64_t out, std::int64_t in, bool bias) { return out * in + (bias ? out : 0); }

std::int64_t original_parameters(const ModelConfig& c) {
    const std::int64_t query = c.num_attention_heads * c.head_dim;
    const std::int64_t kv = c.num_key_value_heads * c.head_dim;
    const LayerRules& rules = c.rules.layers.front();  // layers of a model that can be converted have one shape
    const std::int64_t attention = linear_parameters(query, c.hidden_size, rules.attention.qkv_bias) +
                                   2 * linear_parameters(kv, c.hidden_size, rules.attention.qkv_bias) +
                                   linear_parameters(c.hidden_size, query, rules.attention.o_bias);
    const std::int64_t mlp = 2 * linear_parameters(c.intermediate_size, c.hidden_size, rules.mlp.bias) +
                             linear_parameters(c.hidden_size, c.intermediate_size, rules.mlp.bias);
    const std::int64_t tables = (c.tie_word_embeddings ? 1 : 2) * c.vocab_size * c.hidden_size;
    return tables + c.num_hidden_layers * (attention + mlp + 2 * c.hidden_size) + c.hidden_size;
}

/// k_proj and v_proj against what takes their place. Biases keep their number.
std::int64_t kv_parameters(const ModelConfig& c, const PlanOptions& options, const LatentWidths& widths) {
    const std::int64_t rope_rows = c.num_key_value_heads * options.rope_dim;
    const std::int64_t nope_rows = c.num_key_value_heads * c.head_dim - rope_rows;
    const std::int64_t value_rows = c.num_key_value_heads * c.head_dim;
    const std::int64_t down = shares_latent(options.factorization) ? widths.key : widths.key + widths.value;
    return (rope_rows + down) * c.hidden_size + nope_rows * (widths.key > 0 ? widths.key : c.hidden_size) +
           value_rows * (widths.value > 0 ? widths.value : c.hidden_size);
}

[[noreturn]] void refuse_rank(const std::string& what, std::int64_t asked, std::int64_t largest) {
    throw Error(ErrorCode::usage, "kv-rank " + std::to_string(asked) + " is not possible for " + what +
                                      "; choose at most " + std::to_string(largest));
}

void check_options(const ModelConfig& c, const PlanOptions& options) {
    if (c.latent) throw Error(ErrorCode::usage, "the checkpoint is already converted to MLA; start from the original");
    if (options.rope_dim < 0 || options.rope_dim > c.head_dim || options.rope_dim % 2 != 0) {
        throw Error(ErrorCode::usage, "rope-dim must be even and from 0 to head_dim (" + std::to_string(c.head_dim) +
                                          "), not " + std::to_string(options.rope_dim));
    }
    if (options.kv_rank < 1) throw Error(ErrorCode::usage, "kv-rank must be at least 1");
    const std::int64_t heads = c.num_key_value_heads;
    const std::int64_t nope_rows = heads * (c.head_dim - options.rope_dim);
    const std::int64_t value_rows = heads * c.head_dim;
    const auto largest = [&](std::int64_t rows) { return std::min(rows, c.hidden_size) / heads; };
    switch (options.factorization) {
        case Factorization::joint:
        case Factorization::whitened:
        case Factorization::weighted:
            if (options.kv_rank > largest(nope_rows + value_rows)) {
                refuse_rank(std::string(row_of(options.factorization).name) + " SVD", options.kv_rank,
                            largest(nope_rows + value_rows));
            }
            break;
        case Factorization::split:
            if (options.kv_rank % 2 != 0) {
                throw Error(ErrorCode::usage, "kv-rank must be even for split SVD, half for keys and half for values");
            }
            if (options.kv_rank / 2 > largest(nope_rows)) {
                refuse_rank("split SVD", options.kv_rank, 2 * largest(nope_rows));
            }
            break;
        case Factorization::key:
            if (options.kv_rank > largest(nope_rows)) refuse_rank("key SVD", options.kv_rank, largest(nope_rows));
            break;
        case Factorization::value:
            if (options.kv_rank > largest(value_rows)) refuse_rank("value SVD", options.kv_rank, largest(value_rows));
            break;
        case Factorization::none:
            break;
    }
}

}  // namespace

std::int64_t default_rope_dim(const ModelConfig& config) { return std::max<std::int64_t>(2, config.head_dim / 16 * 2); }

std::int64_t default_kv_rank(const ModelConfig& config) { return config.head_dim / 2; }

Plan plan_conversion(const ModelConfig& config, const PlanOptions& options) {
    check_options(config, options);
    const auto widths = latent_widths(options.factorization, config.num_key_value_heads, config.head_dim,
                                      options.rope_dim, options.kv_rank);
    const std::int64_t kv_before = 2 * config.num_key_value_heads * config.head_dim * config.hidden_size;
    Plan plan;
    plan.parameters_original = original_parameters(config);
    plan.parameters_converted =
        plan.parameters_original + config.num_hidden_layers * (kv_parameters(config, options, widths) - kv_before);
    plan.latent_width = widths.cached;
    plan.original_numbers_per_token = cache_numbers_per_token(config);
    plan.converted_numbers_per_token =
        config.num_hidden_layers * (config.num_key_value_heads * options.rope_dim + widths.cached);
    plan.original_bytes_per_token = static_cast<double>(plan.original_numbers_per_token) * 2;
    plan.converted_bytes_per_token = static_cast<double>(plan.converted_numbers_per_token) * options.kv_bits / 8;
    return plan;
}

std::int64_t cache_numbers_per_token(const ModelConfig& config) {
    if (!config.latent) return config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim;
    const LatentConfig& latent = *config.latent;
    const auto widths = latent_widths(latent.factorization, config.num_key_value_heads, config.head_dim,
                                      latent.rope.rope_dim, latent.kv_rank);
    return config.num_hidden_layers * (config.num_key_value_heads * latent.rope.rope_dim + widths.cached);
}

}  // namespace mha2mla
