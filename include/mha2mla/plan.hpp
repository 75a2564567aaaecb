#pragma once
/// What a conversion costs and saves, from a configuration alone.

#include <cstdint>

#include "mha2mla/layout.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// The paper's defaults, which give 1 - 0.6875 of the cache: d_r = head_dim/8 (even, at least 2), d_kv = head_dim/2.
[[nodiscard]] std::int64_t default_rope_dim(const ModelConfig& config);
[[nodiscard]] std::int64_t default_kv_rank(const ModelConfig& config);

struct PlanOptions {
    std::int64_t rope_dim = 0;
    std::int64_t kv_rank = 0;
    Factorization factorization = Factorization::joint;
    int kv_bits = 16;  // of a number in the converted cache; the original's are 16
    const LatentLayout* layout = &reference_layout();
    bool padded = false;           // kv_rank may be larger than what keys and values fill
    bool query_head_keys = false;  // LatentShape::with_query_head_keys()
};

struct Plan {
    std::int64_t parameters_original = 0, parameters_converted = 0;
    std::int64_t latent_width = 0;                 // R: numbers per token and layer beside the rotated keys
    std::int64_t original_numbers_per_token = 0;   // over all layers: 2 * num_kv_heads * head_dim each
    std::int64_t converted_numbers_per_token = 0;  // LatentShape::cached_numbers() each
    double original_bytes_per_token = 0;
    double converted_bytes_per_token = 0;
    [[nodiscard]] double reduction() const { return 1.0 - converted_bytes_per_token / original_bytes_per_token; }
};

/// Checks the options against the configuration and counts.
/// @throws Error{usage} naming the option and its largest possible value; Error{usage} for a converted checkpoint.
[[nodiscard]] Plan plan_conversion(const ModelConfig& config, const PlanOptions& options);

/// Numbers that the cache of a checkpoint, original or converted, holds per token over all layers.
[[nodiscard]] std::int64_t cache_numbers_per_token(const ModelConfig& config);

}  // namespace mha2mla
