#include <algorithm>
#include <cmath>

#include "../linalg/parallel.hpp"
#include "mha2mla/calibration.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

/// Hidden states of one batch of sequences stay below this; each batch reads every layer once.
constexpr std::int64_t kBatchBytes = 512'000'000;

/// sums[head, k] += Σ_tokens ‖x^[k]‖. Each sum is taken over the tokens in order, by one thread, in double.
void add_norms(Eigen::Ref<const Matrix> x, std::int64_t pairs, std::span<double> sums) {
    const std::int64_t heads = x.cols() / (2 * pairs);
    parallel_for(heads, [&](std::int64_t head, std::vector<float>&) {
        const auto target = sums.subspan(static_cast<std::size_t>(head * pairs), static_cast<std::size_t>(pairs));
        for (std::int64_t token = 0; token < x.rows(); ++token) {
            const float* first = x.data() + token * x.outerStride() + head * 2 * pairs;
            const float* second = first + pairs;
            for (std::int64_t k = 0; k < pairs; ++k) {
                target[static_cast<std::size_t>(k)] +=
                    std::sqrt(static_cast<double>(first[k]) * first[k] + static_cast<double>(second[k]) * second[k]);
            }
        }
    });
}

void divide_finite(std::vector<double>& sums, double count) {
    for (double& sum : sums) {
        sum /= count;
        if (!std::isfinite(sum)) {
            throw Error(ErrorCode::numeric,
                        "queries or keys are not finite; the checkpoint holds NaN or infinite weights");
        }
    }
}

}  // namespace

std::vector<double> CalibrationStats::scores() const {
    std::vector<double> result(static_cast<std::size_t>(layers * kv_heads * pairs));
    const std::int64_t group = heads / kv_heads;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        for (std::int64_t head = 0; head < heads; ++head) {
            const std::int64_t key_row = (layer * kv_heads + head / group) * pairs;
            const std::int64_t query_row = (layer * heads + head) * pairs;
            for (std::int64_t k = 0; k < pairs; ++k) {
                result[static_cast<std::size_t>(key_row + k)] +=
                    mean_query_norm[static_cast<std::size_t>(query_row + k)] *
                    mean_key_norm[static_cast<std::size_t>(key_row + k)];
            }
        }
    }
    return result;
}

CalibrationStats calibrate(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len, Observer& observer) {
    const ModelConfig& config = model.config;
    if (config.latent) {
        throw Error(ErrorCode::usage, model.checkpoint.directory().string() +
                                          ": already converted to MLA; calibrate the original checkpoint");
    }
    CalibrationStats stats;
    stats.layers = config.num_hidden_layers;
    stats.heads = config.num_attention_heads;
    stats.kv_heads = config.num_key_value_heads;
    stats.pairs = config.num_pairs();
    stats.seq_len = seq_len;
    stats.sequences = static_cast<std::int64_t>(ids.size()) / std::max<std::int64_t>(1, seq_len);
    if (stats.sequences < 1) throw Error(ErrorCode::usage, "no whole sequence of tokens to calibrate on");
    const std::int64_t query_size = stats.heads * stats.pairs;
    const std::int64_t key_size = stats.kv_heads * stats.pairs;
    stats.mean_query_norm.resize(static_cast<std::size_t>(stats.layers * query_size));
    stats.mean_key_norm.resize(static_cast<std::size_t>(stats.layers * key_size));
    const auto tap = [&](std::int64_t layer, const Eigen::Ref<const Matrix>& q, const Eigen::Ref<const Matrix>& k) {
        add_norms(q, stats.pairs,
                  std::span(stats.mean_query_norm)
                      .subspan(static_cast<std::size_t>(layer * query_size), static_cast<std::size_t>(query_size)));
        add_norms(k, stats.pairs,
                  std::span(stats.mean_key_norm)
                      .subspan(static_cast<std::size_t>(layer * key_size), static_cast<std::size_t>(key_size)));
    };
    const std::int64_t sequence_bytes = seq_len * config.hidden_size * std::int64_t{sizeof(float)};
    const std::int64_t batch = std::max<std::int64_t>(1, kBatchBytes / sequence_bytes);
    for (std::int64_t first = 0; first < stats.sequences; first += batch) {
        const std::int64_t count = std::min(batch, stats.sequences - first);
        (void)prefill(model,
                      ids.subspan(static_cast<std::size_t>(first * seq_len), static_cast<std::size_t>(count * seq_len)),
                      seq_len, observer, tap);
    }
    const double tokens = static_cast<double>(stats.sequences * seq_len);
    divide_finite(stats.mean_query_norm, tokens);
    divide_finite(stats.mean_key_norm, tokens);
    return stats;
}

}  // namespace mha2mla
