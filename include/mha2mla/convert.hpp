#pragma once
/// The pipeline that turns a checkpoint with MHA/GQA attention into one with MLA, layer by layer.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "mha2mla/align.hpp"
#include "mha2mla/factorize.hpp"
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
    std::optional<Dtype> dtype;  // of every floating-point tensor; absent: each keeps its own
    std::uint64_t max_shard_bytes = 5'000'000'000;
    bool overwrite = false;
    std::uint64_t max_memory = 0;  // private bytes of the run; 0: default_convert_memory()
    /// Whose weights are written, o_proj's too, instead of a factorisation of the original's. `rope` and `kv_rank` must
    /// be what it chose, the factorisation `joint`. Used up by the conversion; its own memory is beside max_memory.
    Aligner* aligner = nullptr;
};

struct ConvertReport {
    Plan plan;
    RopeSelection selection;
    std::vector<double> retained_energy;  // per layer, share of ‖A‖² that its truncated SVD keeps; 1 with `none`
    std::vector<double> alignment_error;  // per layer, see Aligner::next(); empty without an aligner
    std::uint64_t output_bytes = 0;       // of the weight files
};

/// What can be said about the destination before any work. @throws Error{usage} if it is the source, Error{io} if it
/// holds files and `overwrite` is not given.
void check_destination(const Model& source, const std::filesystem::path& destination, bool overwrite);

/// Private memory that convert() keeps to if it is not told otherwise, whatever the depth of the model: two layers'
/// attention matrices in float32 and 200 MB.
[[nodiscard]] std::uint64_t default_convert_memory(const ModelConfig& config);

/// Converts `source` into the directory `destination`. As many layers are factorised side by side as there are threads
/// and the memory holds; meanwhile everything that is not attention is copied file to file. The output appears at
/// once, when it is whole, and its bytes depend on neither threads nor memory.
///
/// Tensor names, row order and the keys of config.json are those of the reference implementation, see docs.
/// @param ranks needed by the 2-norm selection.
/// @throws Error{usage} for impossible options, too little memory or source == destination, Error{numeric} naming a
/// query, key or value
///         tensor that is not finite (others are copied unseen), Error{io}, Error{interrupted}. Nothing that looks
///         finished is left behind.
[[nodiscard]] ConvertReport convert(const Model& source, const std::filesystem::path& destination,
                                    const ConvertOptions& options, const PairRanks* ranks, Observer& observer);

}  // namespace mha2mla
