#include <algorithm>
#include <cmath>

#include "../forward/forward.hpp"
#include "../forward/layer.hpp"
#include "../model/head_order.hpp"
#include "../support/parallel.hpp"
#include "gathered_inputs.hpp"
#include "mha2mla/calibration.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/memory.hpp"
#include "mha2mla/threads.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kFirstRound = 16;  // sequences

// Other memory of a run: the program itself, and the buffers into which BLAS packs its operands.
constexpr std::uint64_t kProgramBytes = 4'000'000;
constexpr std::uint64_t kBlasBytes = 2'000'000;  // per thread

/// sums[head, k] += Σ_tokens ‖x^[k]‖. Each sum is computed in the order of the tokens, by one thread, in double.
void add_norms(const Matrix& x, std::int64_t pairs, std::span<double> sums) {
    const std::int64_t heads = x.cols() / (2 * pairs);
    parallel_for(heads, [&](std::int64_t head, std::vector<float>&) {
        const auto target = sums.subspan(static_cast<std::size_t>(head * pairs), static_cast<std::size_t>(pairs));
        for (std::int64_t token = 0; token < x.rows(); ++token) {
            const float* first = x.data() + token * x.cols() + head * 2 * pairs;
            const float* second = first + pairs;
            for (std::int64_t k = 0; k < pairs; ++k) {
                target[static_cast<std::size_t>(k)] +=
                    std::sqrt(static_cast<double>(first[k]) * first[k] + static_cast<double>(second[k]) * second[k]);
            }
        }
    });
}

std::vector<double> means(std::vector<double> sums, double count) {
    for (double& sum : sums) {
        sum /= count;
        if (!std::isfinite(sum)) {
            throw Error(ErrorCode::numeric,
                        "queries or keys are not finite; the checkpoint holds NaN or infinite weights");
        }
    }
    return sums;
}

/// Sums over a growing number of whole sequences. Every sum is computed in the order of the tokens, so it does not
/// depend on the number of calls of add() if each call begins at a whole block of tokens.
class NormSums {
public:
    NormSums(const Model& model, std::int64_t seq_len, const CalibrationOptions& options)
        : model_(model), seq_len_(seq_len), options_(options), budget_(memory_budget(options.max_memory)) {
        const ModelConfig& config = model.config;
        query_size_ = static_cast<std::size_t>(config.num_attention_heads * config.num_pairs());
        key_size_ = static_cast<std::size_t>(config.num_key_value_heads * config.num_pairs());
        const auto layers = static_cast<std::size_t>(config.num_hidden_layers);
        query_.resize(layers * query_size_);
        key_.resize(layers * key_size_);
        if (options.inputs != CalibrationOptions::Inputs::none) {
            inputs_ = std::make_shared<GatheredInputs>(config, seq_len, options);
        }
    }

    void add(std::span<const TokenId> ids, Observer& observer) {
        const std::int64_t pairs = model_.config.num_pairs();
        const auto tap = [&](std::int64_t layer, const TappedAttention& tapped) {
            const auto at = static_cast<std::size_t>(layer);
            const HeadOrder order = head_order(model_, layer);
            add_norms(order.columns(tapped.q), pairs, std::span(query_).subspan(at * query_size_, query_size_));
            add_norms(order.columns(tapped.k), pairs, std::span(key_).subspan(at * key_size_, key_size_));
            if (inputs_) inputs_->add(layer, tapped.input);
        };
        HiddenStates hidden = hidden_states(static_cast<std::int64_t>(ids.size()));
        forward(model_, ids, seq_len_, hidden, observer, {.stage = "calibrate", .tap = tap, .only_tap = true});
        if (inputs_) inputs_->end_round(static_cast<std::int64_t>(ids.size()));
        sequences_ += static_cast<std::int64_t>(ids.size()) / seq_len_;
    }

    [[nodiscard]] CalibrationStats stats() const {
        CalibrationStats stats;
        stats.layers = model_.config.num_hidden_layers;
        stats.heads = model_.config.num_attention_heads;
        stats.kv_heads = model_.config.num_key_value_heads;
        stats.pairs = model_.config.num_pairs();
        stats.seq_len = seq_len_;
        stats.sequences = sequences_;
        const auto tokens = static_cast<double>(sequences_ * seq_len_);
        stats.mean_query_norm = means(query_, tokens);
        stats.mean_key_norm = means(key_, tokens);
        stats.inputs = inputs_;
        return stats;
    }

private:
    /// The hidden states: in memory if the budget allows it, otherwise on disk.
    [[nodiscard]] HiddenStates hidden_states(std::int64_t tokens) const {
        const std::int64_t hidden_size = model_.config.hidden_size;
        const std::int64_t block = std::min(tokens, block_tokens(seq_len_));
        const std::uint64_t least =
            least_calibration_memory(model_.config, tokens / seq_len_, seq_len_, options_.inputs);
        if (budget_ < least) {
            throw Error(ErrorCode::usage, "calibrating on sequences of " + std::to_string(seq_len_) +
                                              " tokens takes at least " + std::to_string(least) + " bytes (" +
                                              memory_text(least) + "), but only " + memory_text(budget_) +
                                              " may be used; allow more memory, or shorter sequences or fewer threads");
        }
        const auto beyond_one_block = static_cast<std::uint64_t>((tokens - block) * hidden_size) * sizeof(float);
        if (beyond_one_block <= budget_ - least) return {tokens, hidden_size};
        return {tokens, hidden_size, block, options_.spill_directory};
    }

    const Model& model_;
    std::int64_t seq_len_;
    const CalibrationOptions& options_;
    std::uint64_t budget_;
    std::size_t query_size_ = 0, key_size_ = 0;
    std::vector<double> query_;  // [layers, heads, pairs]
    std::vector<double> key_;    // [layers, kv_heads, pairs]
    std::int64_t sequences_ = 0;
    std::shared_ptr<GatheredInputs> inputs_;
};

/// @return the number of whole sequences.
std::int64_t check_request(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len) {
    if (model.config.latent) {
        throw Error(ErrorCode::usage, model.checkpoint.directory().string() +
                                          ": already converted to MLA; calibrate the original checkpoint");
    }
    refuse_conversion(model.config);
    const std::int64_t sequences = seq_len < 1 ? 0 : static_cast<std::int64_t>(ids.size()) / seq_len;
    if (sequences < 1) throw Error(ErrorCode::usage, "no whole sequence of tokens to calibrate on");
    return sequences;
}

}  // namespace

CalibrationOptions::Inputs StatisticSet::inputs() const {
    using Inputs = CalibrationOptions::Inputs;
    return moments ? Inputs::moments : orders.empty() ? Inputs::none : Inputs::samples;
}

bool StatisticSet::has(const StatisticSet& needed) const {
    return std::ranges::includes(orders, needed.orders) && (moments || !needed.moments);
}

StatisticSet& StatisticSet::operator|=(const StatisticSet& other) {
    orders.insert(other.orders.begin(), other.orders.end());
    moments |= other.moments;
    return *this;
}

StatisticSet gathered_in(const CalibrationStats& stats) {
    StatisticSet set;
    for (const auto& [statistic, ranks] : stats.orders) set.orders.insert(statistic);
    set.moments = stats.inputs != nullptr && stats.inputs->extent().moments;
    return set;
}

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

CalibrationStats of_query_heads(const CalibrationStats& stats) {
    CalibrationStats repeated = stats;
    repeated.kv_heads = stats.heads;
    repeated.mean_key_norm.clear();
    repeated.orders.clear();
    repeated.inputs.reset();
    const std::int64_t group = stats.heads / stats.kv_heads;
    repeated.mean_key_norm.reserve(stats.mean_query_norm.size());
    for (std::int64_t head = 0; head < stats.layers * stats.heads; ++head) {
        const auto key = stats.mean_key_norm.begin() + head / group * stats.pairs;
        repeated.mean_key_norm.insert(repeated.mean_key_norm.end(), key, key + stats.pairs);
    }
    return repeated;
}

std::uint64_t least_calibration_memory(const ModelConfig& config, std::int64_t sequences, std::int64_t seq_len,
                                       CalibrationOptions::Inputs inputs) {
    const std::int64_t block = std::min(sequences * seq_len, block_tokens(seq_len));
    const auto rows = static_cast<std::uint64_t>(block * config.hidden_size) * sizeof(float);
    const auto rotary = static_cast<std::uint64_t>(seq_len * config.head_dim) * sizeof(float);
    return kProgramBytes + static_cast<std::uint64_t>(thread_count()) * kBlasBytes + rows + rotary +
           workspace_bytes(config, block, thread_count()) + gathering_bytes(config, inputs);
}

CalibrationStats calibrate(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len, Observer& observer,
                           const CalibrationOptions& options) {
    const std::int64_t sequences = check_request(model, ids, seq_len);
    NormSums sums(model, seq_len, options);
    sums.add(ids.first(static_cast<std::size_t>(sequences * seq_len)), observer);
    return sums.stats();
}

CalibrationStats calibrate_in_rounds(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len,
                                     Observer& observer, const std::function<bool(const CalibrationStats&)>& enough,
                                     const CalibrationOptions& options) {
    const std::int64_t sequences = check_request(model, ids, seq_len);
    const std::int64_t block = block_tokens(seq_len) / seq_len;
    const auto whole_blocks = [&](std::int64_t count) { return (count + block - 1) / block * block; };
    NormSums sums(model, seq_len, options);
    std::int64_t done = 0;
    for (std::int64_t next = whole_blocks(kFirstRound);; next = whole_blocks(done + (done + 1) / 2)) {
        next = std::min(next, sequences);
        sums.add(
            ids.subspan(static_cast<std::size_t>(done * seq_len), static_cast<std::size_t>((next - done) * seq_len)),
            observer);
        done = next;
        CalibrationStats stats = sums.stats();
        if (enough(stats) || done == sequences) return stats;
    }
}

}  // namespace mha2mla
