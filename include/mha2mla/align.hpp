#pragma once
/// Conversion guided by text: what each layer of the converted model computes is brought close to what the original
/// computes there, so that the model lives before any fine-tuning.

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "mha2mla/latent.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/rope.hpp"
#include "mha2mla/table.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

/// How much time a conversion may take for how good a result.
struct AlignQuality {
    std::string_view name;
    std::int64_t steps;        // of gradient descent on each layer by itself
    std::int64_t step_tokens;  // that a step looks at
    std::string_view what;
    std::int64_t window = 1;        // layers that are then fitted together, the window moving on by one
    std::int64_t window_steps = 0;  // on each window
};
[[nodiscard]] std::span<const AlignQuality> align_qualities();
/// @throws Error{usage} listing them.
[[nodiscard]] const AlignQuality& find_align_quality(std::string_view name);

/// At which frequencies the components of a rotated key that all heads share turn.
enum class RopeFrequencies : std::uint8_t { engine, shared, free };
struct RopeFrequenciesRow {
    RopeFrequencies frequencies;
    std::string_view name, what;
};
inline constexpr std::array<RopeFrequenciesRow, 3> kRopeFrequencies = {{
    {RopeFrequencies::engine, "engine", "those that every engine computes for a key of that width from config.json"},
    {RopeFrequencies::shared, "shared",
     "those that serve all layers best, written as the factors of rope_type longrope, which transformers reads"},
    {RopeFrequencies::free, "free", "each layer's own, which only this program's runtime reads"},
}};
static_assert(in_order(kRopeFrequencies, &RopeFrequenciesRow::frequencies));

/// What a key for all heads and a latent are made of (docs/method.md).
enum class SharedKeyBasis : std::uint8_t {
    balanced,             ///< the balanced complex basis, and a factorisation with weighted errors
    transmla,             ///< TransMLA (Meng et al. 2025): RoRoPE, FreqFold and balanced PCA of keys and values
    replicated,           ///< every KV head's pairs; a latent as wide as the values, by the SVD of each head's copy
    replicated_identity,  ///< the same; values are the latent themselves
};

struct AlignOptions {
    double kv_reduction = 0;  // share of the cache that goes, such as 0.6875; unused if both below are given
    std::optional<std::int64_t> rope_dim;  // d_r; absent: chosen
    std::optional<std::int64_t> kv_rank;   // d_kv; absent: chosen
    AlignQuality quality = align_qualities().front();
    const LatentLayout* layout = &reference_layout();
    // Of a layout with one rotated key:
    RopeFrequencies frequencies = RopeFrequencies::engine;
    SharedKeyBasis basis = SharedKeyBasis::balanced;
    LatentNorm latent_norm = LatentNorm::identity;
    bool pad = false;           // to kKernelSplit, whatever is said of the split above
    bool without_bias = false;  // fold_biases() into queries, keys and values
};

/// Tokens of calibration text that are worth taking: what second moments need, as far as one copy of their hidden
/// states takes 1 GB, or, if those are more, what gradient descent looks at, as far as they take 128 MB.
[[nodiscard]] std::int64_t align_tokens(const ModelConfig& config, const AlignQuality& quality);

/// Tokens that splits and balances are compared on, or four times the columns of W_o if those are more.
inline constexpr std::int64_t kAlignChoiceTokens = 4096;
/// Tokens that pairs are ranked on.
inline constexpr std::int64_t kAlignOrderTokens = 1024;

/// One way to spend the budget on rotated and latent dimensions.
struct Split {
    std::int64_t rope_dim = 0, kv_rank = 0;  // see LatentShape
    /// AlignedLayer::error before any refinement: mean over layers, geometric where layers correct those before them.
    double error = 0;
    std::int64_t fold = 1;  // neighbouring pairs in a block of a shared rotated key
};

/// The widths that attention kernels of vLLM and SGLang are made for: those of DeepSeek-V2 and V3.
inline constexpr Split kKernelSplit = {64, 512};

/// Numbers of a latent that hold something of keys and values; the layout adds a constant, or zeros up to a width.
[[nodiscard]] std::int64_t filled_rank(const ModelConfig& config, const AlignOptions& options, const Split& split);

/// Ways to spend the budget, at most eight of them, by rising rope_dim; their error is not known yet.
/// @throws Error{usage} for a budget that leaves nothing to choose.
[[nodiscard]] std::vector<Split> possible_splits(const ModelConfig& config, const AlignOptions& options);

/// A conversion by aligning as it is asked for, before anything is chosen.
struct AlignRequest {
    AlignOptions options;
    std::int64_t windows = 0, seq_len = 0;  // of text: at most so many, of so many tokens
};
/// Nothing if models with these rules can be aligned so; refuse_conversion() asks less.
/// @throws Error{unsupported} naming the rule, and a way to convert the model.
void refuse_alignment(const ModelConfig& config, const AlignOptions& options);
/// With as much text as serves the quality, in windows of 512 tokens: longer ones cost more and teach little.
[[nodiscard]] AlignRequest usual_request(const ModelConfig& config, const AlignOptions& options);
/// Private memory that it takes, mapped weights not counted.
[[nodiscard]] std::uint64_t align_bytes(const ModelConfig& config, const AlignRequest& request);

/// A layer that an Aligner hands out.
struct AlignedLayer {
    LatentWeights weights;
    /// The mean square of what is left of the error in the hidden states behind the attention, in the mean square of
    /// the original's hidden states.
    double error = 0;
};

/// Aligns one layer after the other. Holds the hidden states of the calibration text as the original model has them and
/// as the converted one does, and the weights, gradients and moments of one window of layers: see align_bytes().
class Aligner {
public:
    /// Ranks the rotary pairs of every layer by attention_order() and chooses how the budget is split.
    /// @param windows sequences of seq_len tokens, as make_windows() returns them.
    /// @param model must outlive the aligner.
    /// @throws Error{usage} for a converted checkpoint, no windows or a budget that leaves nothing to choose,
    /// Error{numeric}, Error{interrupted}.
    Aligner(const Model& model, std::span<const TokenId> windows, std::int64_t seq_len, const AlignOptions& options,
            Observer& observer);
    /// One that goes on behind the layers that another had handed out when it was saved.
    /// @param model, seq_len, options must be what that one was given.
    /// @return nothing if the file is not there, or it is not whole, damaged or of another model.
    [[nodiscard]] static std::unique_ptr<Aligner> restore(const std::filesystem::path& path, const Model& model,
                                                          std::int64_t seq_len, const AlignOptions& options,
                                                          Observer& observer);
    ~Aligner();
    Aligner(const Aligner&) = delete;
    Aligner& operator=(const Aligner&) = delete;
    Aligner(Aligner&&) = delete;
    Aligner& operator=(Aligner&&) = delete;

    [[nodiscard]] const Split& chosen() const;
    [[nodiscard]] std::span<const Split> tried() const;
    /// The pairs that keep RoPE with the chosen split, under the name of this selection, "attention"; of a layout with
    /// one rotated key its width alone, as "shared key".
    [[nodiscard]] RopeSelection selection() const;
    /// The frequencies of a rotated key that all heads share, radians per token: one list for all layers, or one for
    /// each layer that was started; empty where they are the engines'. [1 or layers, rope_dim / 2]
    [[nodiscard]] std::vector<std::vector<double>> frequencies() const;
    /// The next layer, starting with layer 0; each is fitted to what those before it got wrong.
    [[nodiscard]] AlignedLayer next();
    /// The layer that comes next.
    [[nodiscard]] std::int64_t layer() const;
    /// For restore(): the hidden states and the layers that are not handed out yet, in one file that replaces an
    /// earlier one when it is whole and on disk. @throws Error{io}
    void save(const std::filesystem::path& path) const;

private:
    struct State;
    explicit Aligner(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace mha2mla
