#pragma once
/// Stage 4: selection of the rotary pairs of each KV head that keep RoPE (MHA2MLA, section 3.1).

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/calibration.hpp"
#include "mha2mla/layout.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// Appends the ranks of one layer. @param order pairs of each KV head, rank 0 first; the layer's number of pairs each.
void append_ranks(const LayerPairs& order, PairRanks& ranks);

struct RopeOptions {
    std::string strategy = "2-norm";
    std::int64_t rope_dim = 0;       // d_r = 2r, dimensions of a head that keep RoPE
    std::int64_t uniform_start = 0;  // first pair of `uniform`
};

/// An order of rotary pairs as a statistic: how it is computed from a layer's inputs, for every rope_dim at once.
struct PairOrder {
    std::string_view statistic = {};  // its name; empty: there is no order
    /// The pairs of every KV head of a layer, that which needs its rotation most first.
    /// @param input normed hidden states of whole sequences, [sequences * seq_len, hidden].
    LayerPairs (*of_layer)(const Model& model, std::int64_t layer, std::int64_t seq_len, const Matrix& input) = nullptr;
    std::string_view by = {};    // for people: what pairs are ranked by
    std::string_view cost = {};  // for people: what that takes on LayerInputs::sample()
};

/// One row per strategy. The program's choices, its help and the tests use this table.
struct RopeStrategy {
    std::string_view name;
    PairRanks (*ranks_of_norms)(const CalibrationStats&);  // null: the strategy does not go by norms
    PairOrder order;                                       // that the strategy goes by instead
    /// Whether the reference implementation selects the same pairs from the name alone; null: never, so that it is
    /// handed a rank file.
    bool (*reference_selects)(const ModelConfig&, const RopeOptions&);
    std::string_view good_for;
    /// The selected pairs of one KV head, ascending.
    std::vector<std::int64_t> (*select)(const ModelConfig&, const RopeOptions&, const PairRanks*, std::int64_t layer,
                                        std::int64_t kv_head);

    [[nodiscard]] bool goes_by_order() const { return order.of_layer != nullptr; }
    [[nodiscard]] bool needs_ranks() const { return ranks_of_norms != nullptr || goes_by_order(); }
};
[[nodiscard]] std::span<const RopeStrategy> rope_strategies();
/// @throws Error{usage} listing the strategies.
[[nodiscard]] const RopeStrategy& find_rope_strategy(std::string_view name);

/// @throws Error{usage} if rope_dim is odd or not from 0 to head_dim.
void check_rope_dim(const ModelConfig& config, std::int64_t rope_dim);

/// @param ranks required by strategies that need them, otherwise ignored.
/// @throws Error{usage} if rope_dim is odd or out of range, or ranks are missing or of another shape.
[[nodiscard]] RopeSelection select_rope(const ModelConfig& config, const RopeOptions& options, const PairRanks* ranks);

/// The ranks of 2-norm: pairs in order of descending score; of equal scores the smaller pair first.
[[nodiscard]] PairRanks two_norm_ranks(const CalibrationStats& stats);
/// The ranks by which a strategy selects, for every rope_dim. @throws Error{usage} if the statistics do not have its
/// order (add_order()), or if it needs no ranks.
[[nodiscard]] PairRanks ranks_for(const RopeStrategy& strategy, const CalibrationStats& stats);
/// Computes an order on stats.inputs->sample(), one layer at a time, and adds it to stats.orders.
/// @throws Error{usage} without samples of this model, Error{interrupted}.
void add_order(const PairOrder& order, const Model& model, CalibrationStats& stats, Observer& observer);

/// Observes whether the 2-norm selection still changes as the statistics grow. A layer is settled if the pairs of all
/// its KV heads did not change over the last two rounds and at least a doubling of the number of sequences.
class SelectionWatch {
public:
    explicit SelectionWatch(std::int64_t rope_dim) : rope_dim_(rope_dim) {}
    /// Adds the statistics of a round. @return whether all layers are settled.
    bool add(const CalibrationStats& stats);
    [[nodiscard]] std::int64_t unsettled_layers() const { return unsettled_; }

private:
    struct Layer {
        LayerPairs kept;
        std::int64_t same_rounds = 0, since = 0;  // number of sequences at the last change
    };
    std::int64_t rope_dim_;
    std::vector<Layer> layers_;
    std::int64_t unsettled_ = 0;
};

/// The largest number of sequences that are worth taking until the 2-norm selection is settled.
inline constexpr std::int64_t kMostSettlingSequences = 16 * 1024;
/// As calibrate_in_rounds(), until the 2-norm selection of `rope_dim` dimensions is settled or the ids end;
/// CalibrationStats::settling says which.
[[nodiscard]] CalibrationStats calibrate_until_settled(const Model& model, std::span<const TokenId> ids,
                                                       std::int64_t seq_len, std::int64_t rope_dim, Observer& observer,
                                                       const CalibrationOptions& options = {});

/// Ranks that make "rank < r" select exactly these pairs.
[[nodiscard]] PairRanks ranks_selecting(const RopeSelection& selection, const ModelConfig& config);
/// Whether the reference implementation selects the same pairs from `partial_rope_version` alone.
[[nodiscard]] bool reference_selects_the_same(const RopeSelection& selection, const ModelConfig& config,
                                              const RopeOptions& options);

}  // namespace mha2mla
