#pragma once
/// The pipeline that turns a checkpoint with MHA/GQA attention into one with MLA, layer by layer.

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "mha2mla/align.hpp"
#include "mha2mla/factorize.hpp"
#include "mha2mla/latent.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/rope.hpp"

namespace mha2mla {

/// Each stage of a conversion as it is asked for: nothing is chosen on text, and nothing refined.
struct StagedPlan {
    RopeOptions rope;
    std::int64_t kv_rank = 0;  // d_kv
    Factorization factorization = Factorization::joint;
    SvdOptions svd;
    KvBalance balance;  // of `whitened` and `weighted`
    NopePhase nope_phase = NopePhase::zero;
    bool query_head_keys = false;  // see LatentShape::with_query_head_keys()

    /// The configuration whose KV heads keep pairs: the model's, or with one for each query head.
    [[nodiscard]] ModelConfig selected_heads(const ModelConfig& config) const;
    /// Whether layers are made with the help of ConversionInputs::inputs.
    [[nodiscard]] bool guided() const {
        return row_of(factorization).needs_moments() || nope_phase == NopePhase::fitted;
    }
};

/// What was decided: all that the bytes of the weights depend on, beside the source and the text.
struct ConversionPlan {
    /// Where the new weights come from: factors of the original's, or an Aligner, which also chooses the widths and
    /// changes o_proj.
    std::variant<StagedPlan, AlignRequest> weights = StagedPlan();
    std::optional<Dtype> dtype = std::nullopt;  // of every floating-point tensor; absent: each keeps its own
    /// Of layout mha2mla: config.json is that of the reference implementation, without code for transformers.
    bool reference_config = false;

    /// Null where weights are aligned.
    [[nodiscard]] const StagedPlan* staged() const { return std::get_if<StagedPlan>(&weights); }
    /// Null where stages are named.
    [[nodiscard]] const AlignRequest* aligned() const { return std::get_if<AlignRequest>(&weights); }
    /// Whether layers were fitted on text to what the original computes; published methods do not do that.
    [[nodiscard]] bool refined() const {
        return aligned() != nullptr && aligned()->options.basis == SharedKeyBasis::balanced;
    }
    /// Whether the widths are those of kernels, which the model may not fill.
    [[nodiscard]] bool padded() const { return aligned() != nullptr && aligned()->options.pad; }
    [[nodiscard]] Factorization factorization() const {
        return staged() != nullptr ? staged()->factorization : Factorization::whitened;
    }
    [[nodiscard]] const LatentLayout& layout() const {
        return aligned() != nullptr ? *aligned()->options.layout : reference_layout();
    }
    /// How pairs are selected; `rope_dim` is that of the plan, or `chosen` where weights are aligned.
    [[nodiscard]] RopeOptions rope(std::int64_t chosen) const {
        if (staged() != nullptr) return staged()->rope;
        return {layout().shared_rope_key ? "shared key" : "attention", chosen, 0};
    }
    /// The widths of the plan; where weights are aligned, those that will be chosen from.
    [[nodiscard]] std::vector<Split> splits(const ModelConfig& config) const;
    /// What plan_conversion() is to count with these widths.
    [[nodiscard]] PlanOptions costed(const Split& split) const;
};

/// What a run may take and do; the weights do not depend on it, but for how they are spread over files.
struct RunLimits {
    std::uint64_t max_memory = 0;  // private bytes; 0: default_convert_memory()
    std::uint64_t max_shard_bytes = 5'000'000'000;
    bool overwrite = false;
    bool resume = false;  // go on with an unfinished conversion, see convert()
};

/// What the model card tells, and for ranks_from also what a resumed conversion must agree in.
struct Provenance {
    std::string command = {};                     // that was run; may be empty
    nlohmann::ordered_json recipe = nullptr;      // the same as a recipe of `batch`
    nlohmann::ordered_json ranks_from = nullptr;  // what statistics were made of; null: convert() takes the ranks' hash
};

struct ConvertReport {
    Plan plan;
    RopeSelection selection;
    std::int64_t kv_rank = 0;                      // d_kv
    std::vector<std::vector<double>> frequencies;  // of a rotated key, see Aligner::frequencies()
    std::vector<double> retained_energy;  // per layer, share of ‖A‖² that its truncated SVD keeps; 1 with `none`
    std::vector<double> balance;          // per layer, the KvBalance::factor that was used; empty where there is none
    std::vector<double> alignment_error;  // per layer, see AlignedLayer; empty without an aligner
    std::uint64_t output_bytes = 0;       // of the weight files
    std::int64_t pieces = 0, pieces_resumed = 0;  // layers and copied tensors; those that an earlier run had finished
    bool already_finished = false;                // nothing was to be done
};

/// What can be said about the destination before any work. @throws Error{usage} if it is the source, Error{io} if it
/// holds files and `limits` says neither overwrite nor, where they are an unfinished conversion, resume.
void check_destination(const Model& source, const std::filesystem::path& destination, const RunLimits& limits);

/// Bytes of the tensors that convert() would write; the most that it may be where an aligner has still to choose.
[[nodiscard]] std::uint64_t planned_output_bytes(const Model& source, const ConversionPlan& plan);
/// Private memory that convert() would take with the threads there are now.
/// @param max_memory as in RunLimits. @throws Error{usage} if it is not enough.
[[nodiscard]] std::uint64_t planned_memory(const ModelConfig& config, const ConversionPlan& plan,
                                           std::uint64_t max_memory);

/// Private memory that convert() keeps to if it is not told otherwise, whatever the depth of the model: two layers'
/// attention matrices in float32 and 200 MB.
[[nodiscard]] std::uint64_t default_convert_memory(const ModelConfig& config);

/// What a running conversion needs beside its plan.
struct ConversionInputs {
    const PairRanks* ranks = nullptr;     // needed by selections that go by statistics
    const LayerInputs* inputs = nullptr;  // needed where StagedPlan::guided()
    Aligner* aligner = nullptr;           // of an aligned conversion; used up by it
};

/// One conversion of a model into a directory: what was asked for, and what the directory holds of it already.
class ConversionJob {
public:
    enum class State : std::uint8_t {
        fresh,       ///< nothing of it is there
        unfinished,  ///< an earlier run left finished pieces, which run() goes on with
        finished,    ///< all of it is there; run() only reports it
    };

    /// Looks at the destination, once: the fingerprint, what is there, the journal. Writes nothing.
    /// @param source must outlive the job.
    /// @param fingerprint conversion_fingerprint() of the same, if it is known already.
    /// @throws Error{usage} if the destination is the source, or holds an unfinished conversion with another
    ///         fingerprint that is to be resumed (naming the differences), Error{io} if it holds files and `limits`
    ///         says neither overwrite nor resume.
    ConversionJob(const Model& source, std::filesystem::path destination, ConversionPlan plan, RunLimits limits = {},
                  Provenance provenance = {}, nlohmann::ordered_json fingerprint = nullptr);
    ~ConversionJob();
    ConversionJob(const ConversionJob&) = delete;
    ConversionJob& operator=(const ConversionJob&) = delete;
    ConversionJob(ConversionJob&&) = delete;
    ConversionJob& operator=(ConversionJob&&) = delete;

    [[nodiscard]] State state() const;
    /// The ranks of an unfinished conversion, which need not be computed again; null if there are none.
    [[nodiscard]] const PairRanks* ranks() const;
    /// For an aligned conversion: the aligner that an unfinished one saved, else a new one on `windows()`. Warns if
    /// there should be a saved one, but it is missing or damaged.
    [[nodiscard]] std::unique_ptr<Aligner> make_aligner(const std::function<std::vector<TokenId>()>& windows,
                                                        Observer& observer) const;
    /// As convert(). @param inputs what is needed, unless the job is finished.
    [[nodiscard]] ConvertReport run(const ConversionInputs& inputs, Observer& observer);

private:
    struct Opened;
    std::unique_ptr<Opened> opened_;
};

/// Converts `source` into the directory `destination`. As many layers are factorised side by side as there are threads
/// and the memory holds; meanwhile everything that is not attention is copied file to file. The output appears at
/// once, when it is whole, and its bytes depend on neither threads nor memory.
///
/// Tensor names, row order and the keys of config.json are those of the layout, see docs.
/// Every layer and every copied tensor that is finished is flushed to disk and recorded with its hash in a journal
/// beside the unfinished files (docs/formats.md). With limits.resume a journal of the same fingerprint is continued:
/// what it records is read back and kept if its hash agrees, all else is done again. An interruption keeps what is
/// finished, a failure only with limits.resume, and a kill always.
///
/// A ConversionJob that is opened and run.
///
/// @throws Error{usage} for an impossible plan, too little memory, source == destination or a journal of another
///         fingerprint (naming what differs), Error{numeric} naming a query, key or value tensor that is not finite
///         (others are copied unseen), Error{io}, Error{interrupted}. Nothing that looks finished is left behind.
[[nodiscard]] ConvertReport convert(const Model& source, const std::filesystem::path& destination,
                                    const ConversionPlan& plan, const ConversionInputs& inputs, Observer& observer,
                                    const RunLimits& limits = {}, const Provenance& provenance = {});

}  // namespace mha2mla
