#pragma once
/// Stage 3: statistics of queries and keys, gathered by running text through the original model.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "mha2mla/matrix.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/shard.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

/// The inputs of each layer's attention: normed hidden states x. They are on disk; those of one layer are read on
/// request. Several threads may read them.
class LayerInputs {
public:
    virtual ~LayerInputs() = default;
    LayerInputs() = default;
    LayerInputs(const LayerInputs&) = delete;
    LayerInputs& operator=(const LayerInputs&) = delete;
    LayerInputs(LayerInputs&&) = delete;
    LayerInputs& operator=(LayerInputs&&) = delete;

    struct Extent {
        std::int64_t layers = 0, hidden = 0;
        std::int64_t sample_tokens = 0, sample_seq_len = 0;
        bool moments = false;
    };
    [[nodiscard]] const Extent& extent() const { return extent_; }
    /// E xᵀx over all tokens. [hidden, hidden], symmetric. @throws Error{io}, Error{usage} if there are no moments.
    [[nodiscard]] MatrixD moment(std::int64_t layer) const;
    /// The inputs x at the beginnings of the first sequences, cut to sample_seq_len tokens each. [sample_tokens,
    /// hidden]
    [[nodiscard]] Matrix sample(std::int64_t layer) const;

    /// The upper triangle of the moment, row by row, which is what files hold: hidden * (hidden + 1) / 2 numbers.
    virtual void read_moment(std::int64_t layer, std::span<double> upper) const = 0;
    virtual void read_sample(std::int64_t layer, std::span<float> rows) const = 0;

protected:
    Extent extent_;
};

/// Mean 2-norms of every rotary pair before RoPE, over all tokens (MHA2MLA, section 3.1 and appendix A).
struct CalibrationStats {
    std::int64_t layers = 0, heads = 0, kv_heads = 0, pairs = 0;
    std::vector<double> mean_query_norm;  // [layers, heads, pairs]
    std::vector<double> mean_key_norm;    // [layers, kv_heads, pairs]
    std::int64_t sequences = 0, seq_len = 0;
    std::string model;  // the source of the statistics, for display
    std::string data;
    /// Set if the number of sequences was determined by the selection (SelectionWatch in rope.hpp).
    struct Settling {
        std::int64_t rope_dim = 0, unsettled_layers = 0;
    };
    std::optional<Settling> settling = std::nullopt;
    /// Orders of the rotary pairs of each KV head that selections go by, by the names of these statistics (PairOrder in
    /// rope.hpp): the rank of each pair, 0 for the first. Each is [layers, kv_heads, pairs].
    std::map<std::string, std::vector<std::uint8_t>, std::less<>> orders = {};
    std::shared_ptr<const LayerInputs> inputs = nullptr;  // null if not collected
    /// Set if these are of one share of a run's sequences; merge_stats() puts the shares together.
    struct Part {
        Shard shard;
        std::string run;  // the same for all shares: a hash of what the run depends on
    };
    std::optional<Part> part = std::nullopt;

    /// score(kv head, k) = Σ over the query heads of the group of mean‖q^[k]‖ · mean‖k^[k]‖.
    /// [layers, kv_heads, pairs]
    [[nodiscard]] std::vector<double> scores() const;
};

/// The norms of keys repeated for each query head, which then has scores of its own; without orders and inputs.
[[nodiscard]] CalibrationStats of_query_heads(const CalibrationStats& stats);

struct CalibrationOptions {
    /// The most bytes that a run may allocate, without mapped weights; 0: half of the available memory.
    std::uint64_t max_memory = 0;
    /// Directory for hidden states that exceed the memory budget; empty: $TMPDIR, /var/tmp or /tmp.
    std::filesystem::path spill_directory = {};
    /// The layer inputs to collect besides the norms, in a temporary file in the same directory: none, samples, or
    /// samples and moments.
    enum class Inputs : std::uint8_t { none, samples, moments } inputs = Inputs::none;
};
/// Statistics besides the norms.
struct StatisticSet {
    std::set<std::string, std::less<>> orders = {};  // of rotary pairs, by name: see CalibrationStats::orders
    bool moments = false;

    /// The layer inputs from which they are computed.
    [[nodiscard]] CalibrationOptions::Inputs inputs() const;
    [[nodiscard]] bool has(const StatisticSet& needed) const;
    StatisticSet& operator|=(const StatisticSet& other);
};
/// What the statistics hold besides the norms.
[[nodiscard]] StatisticSet gathered_in(const CalibrationStats& stats);

/// The number of tokens of LayerInputs::sample(), and the most of them per sequence.
inline constexpr std::int64_t kSampleTokens = 2048;
inline constexpr std::int64_t kSampleSeqLen = 512;

/// The least max_memory for calibrating on `sequences` sequences of seq_len tokens. Moments add 8·hidden² bytes and 256
/// tokens in double, for any number of layers.
[[nodiscard]] std::uint64_t least_calibration_memory(const ModelConfig& config, std::int64_t sequences,
                                                     std::int64_t seq_len, CalibrationOptions::Inputs inputs);

/// Runs all sequences through one layer after the other, so that each weight is read once and the memory does not grow
/// with the number of layers. Hidden states that exceed the budget are stored in an unnamed temporary file. The result
/// is bit-identical for every budget and number of threads.
/// @param ids `ids.size() / seq_len` sequences without BOS.
/// @throws Error{usage} for a converted checkpoint, no whole sequence or a budget that is too small (naming the
/// least sufficient one), Error{numeric} if a norm is not finite, Error{io} if a temporary file is needed and the disk
/// is full, Error{interrupted}.
[[nodiscard]] CalibrationStats calibrate(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len,
                                         Observer& observer, const CalibrationOptions& options = {});

/// Calibrates on a growing number of sequences: 16, or slightly more so that rounds consist of whole blocks of tokens,
/// then half as many again each round, until `enough` returns true for the statistics so far or the ids end. The result
/// is that of calibrate() on the sequences that were used.
[[nodiscard]] CalibrationStats calibrate_in_rounds(const Model& model, std::span<const TokenId> ids,
                                                   std::int64_t seq_len, Observer& observer,
                                                   const std::function<bool(const CalibrationStats&)>& enough,
                                                   const CalibrationOptions& options = {});

/// Writes a safetensors file (docs/formats.md), with the layer inputs of one layer in memory at a time.
/// @throws Error{io}, Error{interrupted}.
void save_stats(const std::filesystem::path& path, const CalibrationStats& stats, Observer& observer);
/// Reads a statistics file. Layer inputs stay in the file, which is mapped. @throws Error{io}, Error{format} if it is
/// not a statistics file.
[[nodiscard]] CalibrationStats load_stats(const std::filesystem::path& path);
/// The statistics of a whole run from files of all its shares, in any order. Norms and moments are means weighted by
/// the numbers of sequences, so they are those of one run but for the rounding of doubles; the samples are those at the
/// beginning of the text. Layer inputs stay in the files, which are mapped; those of one layer and file are in memory
/// at a time.
/// @throws Error{usage} if a file is no share, of another run or there twice, or if shares are missing (naming them),
///         Error{format} for files that do not belong together although they say so, and what load_stats() throws.
[[nodiscard]] CalibrationStats merge_stats(std::span<const std::filesystem::path> files);
/// @throws Error{usage} naming both shapes if the statistics are from a model of another shape.
void check_stats_fit(const CalibrationStats& stats, const ModelConfig& config, const std::string& name);

}  // namespace mha2mla
