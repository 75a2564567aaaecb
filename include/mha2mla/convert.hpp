#pragma once
/// The pipeline that turns a checkpoint with MHA/GQA attention into one with MLA, layer by layer.

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/align.hpp"
#include "mha2mla/factorize.hpp"
#include "mha2mla/latent.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/rope.hpp"

namespace mha2mla {

struct ConvertOptions {
    RopeOptions rope;
    std::int64_t kv_rank = 0;  // d_kv
    Factorization factorization = Factorization::joint;
    SvdOptions svd;
    KvBalance balance;                       // of `whitened` and `weighted`
    NopePhase nope_phase = NopePhase::zero;  // not of an aligned conversion, which finds it by itself
    const LayerInputs* inputs = nullptr;     // needed where guided()
    std::optional<Dtype> dtype;              // of every floating-point tensor; absent: each keeps its own
    std::uint64_t max_shard_bytes = 5'000'000'000;
    bool overwrite = false;
    bool resume = false;           // go on with an unfinished conversion, see convert()
    std::uint64_t max_memory = 0;  // private bytes of the run; 0: default_convert_memory()
    /// Where weights are to be aligned: what was asked for. Until an aligner has chosen, `rope` and `kv_rank` are one
    /// possible choice, which is enough to plan.
    std::optional<AlignRequest> align;
    /// Whose weights are written, o_proj's too, instead of a factorisation of the original's. `rope` and `kv_rank` must
    /// be what it chose, the factorisation `joint` or `whitened`. Used up by the conversion.
    Aligner* aligner = nullptr;
    /// Whether layers are made with the help of `inputs`.
    [[nodiscard]] bool guided() const {
        return row_of(factorization).needs_moments() || nope_phase == NopePhase::fitted;
    }
    [[nodiscard]] bool aligned() const { return align || aligner != nullptr; }

    // What the model card tells, and for ranks_from also what a resumed conversion must agree in.
    std::string command;                // that was run; may be empty
    nlohmann::ordered_json recipe;      // the same as a recipe of `batch`; may be null
    nlohmann::ordered_json ranks_from;  // what the ranks were made of; null: convert() takes their hash
};

struct ConvertReport {
    Plan plan;
    RopeSelection selection;
    std::int64_t kv_rank = 0;             // d_kv
    std::vector<double> retained_energy;  // per layer, share of ‖A‖² that its truncated SVD keeps; 1 with `none`
    std::vector<double> balance;          // per layer, the KvBalance::factor that was used; empty where there is none
    std::vector<double> alignment_error;  // per layer, see AlignedLayer; empty without an aligner
    std::uint64_t output_bytes = 0;       // of the weight files
    std::int64_t pieces = 0, pieces_resumed = 0;  // layers and copied tensors; those that an earlier run had finished
    bool already_finished = false;                // nothing was to be done
};

/// What can be said about the destination before any work. @throws Error{usage} if it is the source, Error{io} if it
/// holds files and `options` says neither overwrite nor, where they are an unfinished conversion, resume.
void check_destination(const Model& source, const std::filesystem::path& destination, const ConvertOptions& options);

/// The report of a conversion with this fingerprint (fingerprint.hpp) that `destination` holds as a whole, by its
/// mha2mla.json: every file is there in its size. Nothing if it is another, or not whole.
[[nodiscard]] std::optional<ConvertReport> finished_conversion(const std::filesystem::path& destination,
                                                               const nlohmann::ordered_json& fingerprint);
/// The fingerprint of the unfinished conversion that `destination` holds, else of the finished one; null if none.
[[nodiscard]] nlohmann::ordered_json fingerprint_at(const std::filesystem::path& destination);
/// The ranks of an unfinished conversion at `destination`, so that they need not be computed again to resume it.
/// @throws Error{usage} naming the differences if there is an unfinished conversion with another fingerprint.
[[nodiscard]] std::optional<PairRanks> unfinished_ranks(const std::filesystem::path& destination,
                                                        const nlohmann::ordered_json& fingerprint);

/// Where the aligner of an unfinished conversion at `destination` was saved, if it was. @throws as above.
[[nodiscard]] std::optional<std::filesystem::path> unfinished_alignment(const std::filesystem::path& destination,
                                                                        const nlohmann::ordered_json& fingerprint);

/// What record_measurement() wrote into `directory`; null if nothing.
[[nodiscard]] nlohmann::ordered_json measurement_at(const std::filesystem::path& directory);
/// Adds to the mha2mla.json and the model card of a conversion what it costs.
/// @param measured object of `data` (its name), `nll_original`, `nll_converted`, `mean_kl`, `tokens`, `windows` and
///                 `context`; anything else is kept for machines.
/// @throws Error{format} if `directory` has no mha2mla.json, Error{io}.
void record_measurement(const std::filesystem::path& directory, const nlohmann::ordered_json& measured);

/// Bytes of the tensors that convert() would write; the most that it may be where an aligner has still to choose.
[[nodiscard]] std::uint64_t planned_output_bytes(const Model& source, const ConvertOptions& options);
/// Private memory that convert() would take with the threads there are now.
/// @throws Error{usage} if `options` does not allow enough.
[[nodiscard]] std::uint64_t planned_memory(const ModelConfig& config, const ConvertOptions& options);

/// Private memory that convert() keeps to if it is not told otherwise, whatever the depth of the model: two layers'
/// attention matrices in float32 and 200 MB.
[[nodiscard]] std::uint64_t default_convert_memory(const ModelConfig& config);

/// Converts `source` into the directory `destination`. As many layers are factorised side by side as there are threads
/// and the memory holds; meanwhile everything that is not attention is copied file to file. The output appears at
/// once, when it is whole, and its bytes depend on neither threads nor memory.
///
/// Tensor names, row order and the keys of config.json are those of the reference implementation, see docs.
/// Every layer and every copied tensor that is finished is flushed to disk and recorded with its hash in a journal
/// beside the unfinished files (docs/formats.md). With options.resume a journal of the same fingerprint is continued:
/// what it records is read back and kept if its hash agrees, all else is done again. An interruption keeps what is
/// finished, a failure only with options.resume, and a kill always.
///
/// @param ranks needed by selections that go by statistics.
/// @throws Error{usage} for impossible options, too little memory, source == destination or a journal of another
///         fingerprint (naming what differs), Error{numeric} naming a query, key or value tensor that is not finite
///         (others are copied unseen), Error{io}, Error{interrupted}. Nothing that looks finished is left behind.
[[nodiscard]] ConvertReport convert(const Model& source, const std::filesystem::path& destination,
                                    const ConvertOptions& options, const PairRanks* ranks, Observer& observer);

}  // namespace mha2mla
