#pragma once
/// Stage 3: statistics of queries and keys, gathered by running text through the original model.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/runtime.hpp"

namespace mha2mla {

/// Mean 2-norms of every rotary pair before RoPE, over all tokens (MHA2MLA, section 3.1 and appendix A).
struct CalibrationStats {
    std::int64_t layers = 0, heads = 0, kv_heads = 0, pairs = 0;
    std::vector<double> mean_query_norm;  // [layers, heads, pairs]
    std::vector<double> mean_key_norm;    // [layers, kv_heads, pairs]
    std::int64_t sequences = 0, seq_len = 0;
    std::string model;  // where they come from, for people
    std::string data;

    /// score(kv head, k) = Σ over the query heads of the group of mean‖q^[k]‖ · mean‖k^[k]‖.
    /// [layers, kv_heads, pairs]
    [[nodiscard]] std::vector<double> scores() const;
};

/// @param ids `ids.size() / seq_len` sequences without BOS.
/// @throws Error{usage} for a converted checkpoint or no whole sequence, Error{numeric} if a norm is not finite.
[[nodiscard]] CalibrationStats calibrate(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len,
                                         Observer& observer);

/// Writes a safetensors file: mean_query_norm, mean_key_norm (F64) and metadata. @throws Error{io}
void save_stats(const std::filesystem::path& path, const CalibrationStats& stats);
/// @throws Error{io}, Error{format} if it is not a statistics file.
[[nodiscard]] CalibrationStats load_stats(const std::filesystem::path& path);
/// @throws Error{usage} naming both if the statistics were not taken from a model of this shape.
void check_stats_fit(const CalibrationStats& stats, const ModelConfig& config, const std::string& name);

}  // namespace mha2mla
