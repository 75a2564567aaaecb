#pragma once
/// Stage 3: statistics of queries and keys, gathered by running text through the original model.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mha2mla/matrix.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

/// What goes into each layer's attention: normed hidden states x. On disk; a layer is in memory while it is asked for.
/// May be read from several threads.
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
    /// The beginnings of the first sequences themselves, whole sequences of sample_seq_len. [sample_tokens, hidden]
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
    std::string model;  // where they come from, for people
    std::string data;
    /// Where the number of sequences was chosen by watching the selection (SelectionWatch in rope.hpp).
    struct Settling {
        std::int64_t rope_dim = 0, unsettled_layers = 0;
    };
    std::optional<Settling> settling = std::nullopt;
    /// Rank of every rotary pair by what its rotation is needed for, 0 the most needed (add_attention_ranks() in
    /// rope.hpp); empty where it was not asked for. [layers, kv_heads, pairs]
    std::vector<std::uint8_t> attention_ranks = {};
    std::shared_ptr<const LayerInputs> inputs = nullptr;  // where they were asked for

    /// score(kv head, k) = Σ over the query heads of the group of mean‖q^[k]‖ · mean‖k^[k]‖.
    /// [layers, kv_heads, pairs]
    [[nodiscard]] std::vector<double> scores() const;
};

struct CalibrationOptions {
    /// Bytes that a run may allocate, mapped weights not counted; 0: half of what is available.
    std::uint64_t max_memory = 0;
    /// Where hidden states go that the budget does not hold; empty: $TMPDIR, /var/tmp or /tmp.
    std::filesystem::path spill_directory;
    /// What to gather beside the norms, also into a temporary file there: samples, or moments too.
    enum class Inputs : std::uint8_t { none, samples, moments } inputs = Inputs::none;
};
/// Tokens of LayerInputs::sample(), and how much of a sequence serves.
inline constexpr std::int64_t kSampleTokens = 2048;
inline constexpr std::int64_t kSampleSeqLen = 512;

/// The least max_memory that `sequences` sequences of seq_len tokens can be calibrated with. Moments take
/// 8·hidden² bytes and those of 256 tokens in double more, whatever the depth.
[[nodiscard]] std::uint64_t least_calibration_memory(const ModelConfig& config, std::int64_t sequences,
                                                     std::int64_t seq_len, CalibrationOptions::Inputs inputs);

/// Runs all sequences through one layer after the other, so that each weight is read once and memory does not grow with
/// depth. Hidden states that exceed the budget go through an unnamed temporary file. The result is the same bits
/// whatever the budget and the number of threads.
/// @param ids `ids.size() / seq_len` sequences without BOS.
/// @throws Error{usage} for a converted checkpoint, no whole sequence or a budget that is too small (naming the least
/// that is not), Error{numeric} if a norm is not finite, Error{io} if a temporary file is needed and the disk is full,
/// Error{interrupted}.
[[nodiscard]] CalibrationStats calibrate(const Model& model, std::span<const TokenId> ids, std::int64_t seq_len,
                                         Observer& observer, const CalibrationOptions& options = {});

/// The same on a growing number of sequences: 16, or a little more so that the rounds are whole blocks of tokens, then
/// half as many again each time, until `enough` says so of the statistics so far or the ids end. The result is that of
/// calibrate() on the sequences that were used.
[[nodiscard]] CalibrationStats calibrate_in_rounds(const Model& model, std::span<const TokenId> ids,
                                                   std::int64_t seq_len, Observer& observer,
                                                   const std::function<bool(const CalibrationStats&)>& enough,
                                                   const CalibrationOptions& options = {});

/// Writes a safetensors file (docs/formats.md), layer inputs one layer at a time. @throws Error{io}
void save_stats(const std::filesystem::path& path, const CalibrationStats& stats);
/// Layer inputs stay in the file, which is mapped. @throws Error{io}, Error{format} if it is not a statistics file.
[[nodiscard]] CalibrationStats load_stats(const std::filesystem::path& path);
/// @throws Error{usage} naming both if the statistics were not taken from a model of this shape.
void check_stats_fit(const CalibrationStats& stats, const ModelConfig& config, const std::string& name);

}  // namespace mha2mla
