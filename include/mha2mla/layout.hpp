#pragma once
/// How a converted checkpoint is laid out: its sizes, its tensors and what its config.json says of them.

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/table.hpp"

namespace mha2mla {

/// Which of NoPE keys and values go through a latent, and whether they share it (MHA2MLA, section 3.2).
/// `whitened` and `weighted` are `joint` with another measure of the error: nothing differs once the weights are there.
enum class Factorization : std::uint8_t { joint, whitened, weighted, split, key, value, none };

struct FactorizationRow {
    Factorization factorization;
    std::string_view name;            // "joint", "split", ...
    std::string_view reference_name;  // `svd_init_method` of the reference implementation
    bool key, value;                  // whether NoPE keys and values go through a latent
    bool shared;                      // and it is the same for both
    bool by_moments;                  // errors are measured with the second moments of layer inputs
    std::string_view what;

    [[nodiscard]] constexpr bool needs_moments() const { return by_moments; }
    /// Whether keys or values stay as they are, so that kv_rank alone does not say how large the cache is.
    [[nodiscard]] constexpr bool leaves_part_whole() const { return !key || !value; }
    /// Whether keys and values get half of kv_rank each.
    [[nodiscard]] constexpr bool halves_rank() const { return key && value && !shared; }
};
inline constexpr std::array<FactorizationRow, 7> kFactorizations = {{
    {Factorization::joint, "joint", "joint", true, true, true, false,
     "NoPE keys and values share one latent (the paper's default)"},
    {Factorization::whitened, "whitened", "joint", true, true, true, true,
     "as joint, with the least error on your text instead of in the weights"},
    {Factorization::weighted, "weighted", "joint", true, true, true, true,
     "as whitened, errors counted by what queries and the output projection make of them"},
    {Factorization::split, "split", "split", true, true, false, false,
     "a latent of half the width each for NoPE keys and for values"},
    {Factorization::key, "key", "only_key", true, false, false, false,
     "only NoPE keys go through a latent; values stay whole"},
    {Factorization::value, "value", "only_value", false, true, false, false,
     "only values go through a latent; NoPE keys stay whole"},
    {Factorization::none, "none", "none", false, false, false, false, "partial RoPE only, nothing is factorised"},
}};
static_assert(in_order(kFactorizations, &FactorizationRow::factorization));
[[nodiscard]] constexpr const FactorizationRow& row_of(Factorization factorization) {
    return kFactorizations.at(static_cast<std::size_t>(factorization));
}

/// Whether NoPE keys and values share one latent.
[[nodiscard]] constexpr bool shares_latent(Factorization factorization) { return row_of(factorization).shared; }

/// Ascending rotary pairs of each KV head of a layer.
using LayerPairs = std::vector<std::vector<std::int64_t>>;

/// The rotary pairs that keep RoPE: pairs[layer][kv_head] holds `rope_dim / 2` ascending pair indices.
struct RopeSelection {
    std::string strategy;
    std::int64_t rope_dim = 0;
    std::vector<LayerPairs> pairs;
};

/// Rank of every rotary pair by a score, 0 the largest, as the reference implementation stores it: the same rank in
/// both halves of a head.
struct PairRanks {
    std::int64_t layers = 0, kv_heads = 0, head_dim = 0;
    std::vector<std::uint8_t> values;  // [layers, kv_heads, head_dim]
    [[nodiscard]] std::uint8_t rank(std::int64_t layer, std::int64_t kv_head, std::int64_t pair) const {
        return values[static_cast<std::size_t>((layer * kv_heads + kv_head) * head_dim + pair)];
    }
    /// The `count` pairs with the least ranks, ascending.
    [[nodiscard]] std::vector<std::int64_t> first_pairs(std::int64_t layer, std::int64_t kv_head,
                                                        std::int64_t count) const;
};
/// The pairs of each KV head of a layer whose rank is among the first rope_dim / 2.
[[nodiscard]] LayerPairs kept_pairs(const PairRanks& ranks, std::int64_t layer, std::int64_t rope_dim);

/// Reads a rank file of the reference implementation (`.pth`: a zip of a pickled uint8 tensor [layers, kv_heads,
/// head_dim]). Nothing is unpickled; only this exact form is accepted. @throws Error{io}, Error{format}
[[nodiscard]] PairRanks read_rank_file(const std::filesystem::path& path);
/// The bytes of such a file, for torch.load. They depend only on the ranks.
[[nodiscard]] std::string rank_file_bytes(const PairRanks& ranks);

/// Sizes of a layer's attention before the conversion.
struct AttentionShape {
    std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0, hidden = 0;

    /// Query heads that share a KV head.
    [[nodiscard]] std::int64_t group_size() const { return num_heads / num_kv_heads; }
    [[nodiscard]] std::int64_t query_rows() const { return num_heads * head_dim; }
    [[nodiscard]] std::int64_t value_rows() const { return num_kv_heads * head_dim; }
};

/// Latent widths of one layer, in numbers per token.
struct LatentWidths {
    std::int64_t key = 0;     // 0: NoPE keys are not factorised
    std::int64_t value = 0;   // 0: values are not factorised
    std::int64_t cached = 0;  // what a cache must keep beside the rotated keys
};

/// Of norms of latents; transformers gives them this epsilon whatever config.json says.
inline constexpr double kLatentNormEps = 1e-6;

/// What the norm that DeepSeek's layout puts on a latent does (docs/formats.md).
enum class LatentNorm : std::uint8_t { identity, constant, trained };
struct LatentNormRow {
    LatentNorm norm;
    std::string_view name, what;
};
inline constexpr std::array<LatentNormRow, 3> kLatentNorms = {{
    {LatentNorm::identity, "identity",
     "nothing: the latent is so small that the norm divides by a constant; every engine, F32 and BF16"},
    {LatentNorm::constant, "constant",
     "nothing: one of the latent's numbers is a large constant, which takes a bias; transformers, also in F16"},
    {LatentNorm::trained, "trained",
     "it is there, and the weights are refined with it; every engine and dtype, and any training afterwards"},
}};
static_assert(in_order(kLatentNorms, &LatentNormRow::norm));

// A norm of a latent c computes w ∘ c / √(eps + mean c²). If c comes times kTinyLatent, mean c² vanishes beside eps =
// 1e-6, so that the norm divides by the constant √eps. With w = kTinyLatentWeight the latent that is cached is
// c · 2^-10 / √eps, near c, and the next projection takes 2^10 · √eps. Powers of two lose nothing; BF16 and F32 hold
// them, F16 does not.
inline constexpr float kTinyLatent = 0x1p-30F;
inline constexpr float kTinyLatentWeight = 0x1p20F;

struct LatentLayout;
/// The layout of the MHA2MLA reference implementation, whose training and evaluation code loads it.
[[nodiscard]] const LatentLayout& reference_layout();
/// The layout of DeepSeek-V3, which engines load: one rotated key for all heads, and up projections of each query head.
[[nodiscard]] const LatentLayout& deepseek_layout();

/// Sizes of a layer's attention in MLA form.
struct LatentShape : AttentionShape {
    std::int64_t rope_dim = 0;  // d_r: dimensions of a rotated key
    std::int64_t kv_rank = 0;   // d_kv: width of a latent, over keys and values together; see latents()
    Factorization factorization = Factorization::joint;
    const LatentLayout* layout = &reference_layout();
    std::int64_t query_rank = 0;    // width of the queries' own latent; 0: none
    std::int64_t own_nope_dim = 0;  // see LatentConfig::nope_dim
    std::int64_t key_norms = 0;     // norms of a token's key: one of each KV head, or one over all of them (QK-norm)
    std::int64_t value_heads = 0;   // of the original's KV heads, if each query head has keys of its own; 0: as many

    /// Rotated keys of a token: one of each KV head, or one for all heads.
    [[nodiscard]] std::int64_t rope_keys() const;
    /// Latents of kv_rank numbers that a token has: as many as there are rotated keys, or heads of values.
    [[nodiscard]] std::int64_t latents() const { return value_heads > 0 ? value_heads : rope_keys(); }
    /// Heads of keys that share one of values.
    [[nodiscard]] std::int64_t heads_per_value() const { return value_heads > 0 ? num_kv_heads / value_heads : 1; }
    /// The same sizes where the keys are repeated for each query head, so that each may keep other pairs, and the
    /// values are not: is_gqa2mha2mla of the reference implementation.
    [[nodiscard]] LatentShape with_query_head_keys() const;
    /// Heads of the keys and values that the latent is projected to: KV heads, or query heads.
    [[nodiscard]] std::int64_t up_heads() const;
    /// Dimensions of a head's query and key that do not rotate.
    [[nodiscard]] std::int64_t nope_dim() const;
    /// Rows of the queries: what rotates and what does not.
    [[nodiscard]] std::int64_t latent_query_rows() const { return num_heads * (rope_dim + nope_dim()); }
    [[nodiscard]] std::int64_t rope_rows() const { return rope_keys() * rope_dim; }
    /// Rows of the up projections of keys and of values.
    [[nodiscard]] std::int64_t up_key_rows() const { return up_heads() * nope_dim(); }
    [[nodiscard]] std::int64_t up_value_rows() const { return up_heads() * head_dim; }
    /// Rows of the original's keys that do not rotate, and so are factorised with its values.
    [[nodiscard]] std::int64_t nope_rows() const { return value_rows() - rope_rows(); }
    [[nodiscard]] LatentWidths widths() const;
    /// What a norm of keys leaves to do where they are computed from a latent: numbers that multiply the logits of what
    /// does not rotate.
    [[nodiscard]] std::int64_t key_scales() const { return widths().key > 0 && nope_dim() > 0 ? key_norms : 0; }
    /// What a cache keeps of a token: rotated keys, what LatentWidths::cached says, and scales of keys.
    [[nodiscard]] std::int64_t cached_numbers() const { return rope_rows() + widths().cached + key_scales(); }
    /// The largest kv_rank that the matrices allow; nothing where nothing is factorised.
    [[nodiscard]] std::optional<std::int64_t> largest_kv_rank() const;
};

/// What a converted checkpoint's config.json says of its attention.
struct LatentConfig {
    RopeSelection rope;  // its pairs are empty where all of a rotated key's dimensions are pairs of their own
    Factorization factorization = Factorization::joint;
    std::int64_t kv_rank = 0;     // d_kv, see LatentShape
    std::int64_t query_rank = 0;  // see LatentShape
    const LatentLayout* layout = &reference_layout();
    /// Of a rotated key that all heads share, radians per token: a list for all layers or one for each, to be written;
    /// empty: engines compute them from the rest of config.json. Read ones are in ModelConfig::rules.
    std::vector<std::vector<double>> frequencies = {};
    /// Of a model that was MLA from the start: dimensions of a head's query and key that do not rotate; 0: what
    /// conversions to the layout have.
    std::int64_t nope_dim = 0;
    /// Of the reference implementation's own checkpoints: norms of queries and keys have the weights of what rotates
    /// first, then of the others.
    bool norms_by_part = false;
    bool rotates_before_norm = false;  // the same, see AttentionRule
    /// The same, with its is_gqa2mha2mla: each query head has keys of its own, but values are those of so many heads;
    /// 0: as many as there are keys.
    std::int64_t value_heads = 0;

    /// The kept pairs of each KV head of a layer; empty: all pairs of the rotated keys, in order.
    [[nodiscard]] std::span<const std::vector<std::int64_t>> layer_pairs(std::int64_t layer) const {
        if (rope.pairs.empty()) return {};
        return rope.pairs[static_cast<std::size_t>(layer)];
    }
};

/// A projection of the original's attention.
enum class Projection : std::uint8_t { query, key, value, output };

/// What a tensor of a converted layer does.
enum class LatentRole : std::uint8_t {
    query,
    key_rope,
    down,        ///< of a latent that keys and values share
    down_key,    ///< of a latent of keys alone
    down_value,  ///< of a latent of values alone
    up_key,
    up_value,
    output,
    down_and_key_rope,  ///< rows of `down`, then those of `key_rope`
    up,                 ///< of each head: rows of `up_key`, then those of `up_value`
    latent_norm,        ///< of the latent, a vector
    query_down,         ///< of the queries' own latent, which `query` then reads
    query_norm,         ///< of that latent, a vector
};

/// One linear map of a converted layer.
struct LatentTensor {
    LatentRole role;
    std::string_view name;       // behind the layer's prefix, without ".weight" or ".bias"
    std::int64_t rows, columns;  // out_features, in_features; 0 columns: a vector
    Projection from;             // of the original, whose dtype it takes
    bool biased;                 // it has a bias where `from` has one

    /// Rows of a checkpoint's tensor: KV heads that share a value head have one copy of its rows there.
    [[nodiscard]] std::int64_t stored_rows(const LatentShape& shape) const {
        return role == LatentRole::up_value ? rows / shape.heads_per_value() : rows;
    }
};

/// Where heads lie in the rows of a tensor: those of head h start at first + h * stride.
struct HeadRows {
    std::int64_t first = 0, stride = 0;
};
struct LatentRows {
    HeadRows query_rope, query_nope;  // of LatentRole::query
    HeadRows up_key, up_value;        // of LatentRole::up, or of up_key and up_value
};

/// What a layout's loader wants to be told beside LatentConfig.
struct LayoutNotes {
    std::string rank_file;           // its name in the output directory, or empty
    std::int64_t uniform_start = 0;  // RopeOptions::uniform_start
    bool aligned = false;            // the weights were refined on text
    bool biased = false;             // key, output and, where they have a latent, query projections have a bias
    bool reference = false;          // for the reference implementation's own code, which wants the original's classes
};

/// A file of code by which transformers loads a layout that it does not know.
struct LoaderFile {
    std::string name, text;
};

/// Begins the model_type of a converted model, before that of the original, in a layout that has none of its own.
inline constexpr std::string_view kConvertedPrefix = "mha2mla_";

/// A form of converted checkpoints. A further one is a file in src/layout and a row in layouts.cpp.
struct LatentLayout {
    std::string_view name, what;
    bool shared_rope_key;         // one rotated key and one latent for all heads, up projections of each query head
    bool interleaved;             // pair k of a rotated key is dims (2k, 2k+1) instead of (k, k + pairs)
    bool scales_by_query_dims;    // loaders divide logits by √(rope_dim + nope_dim) instead of the original's divisor
    std::string_view model_type;  // in config.json; empty: the original's, behind kConvertedPrefix
    /// The tensors of a layer's attention in the order in which they are written. The same in every layer.
    std::vector<LatentTensor> (*tensors)(const LatentShape& shape);
    LatentRows (*rows)(const LatentShape& shape);
    /// What a whole config.json says; nothing if it is not of this layout. @throws Error{format} naming the key.
    std::optional<LatentConfig> (*read_config)(const nlohmann::ordered_json& config, const AttentionShape& attention,
                                               std::int64_t layers, const std::string& file);
    /// The text of the config.json of a conversion. @param config the original's.
    std::string (*config_text)(const nlohmann::ordered_json& config, const LatentConfig& latent,
                               const LayoutNotes& notes);
    /// What stands beside config.json, unless LayoutNotes::reference, where has_classes() of the original's config;
    /// both null: nothing.
    std::vector<LoaderFile> (*loader_files)();
    bool (*has_classes)(const nlohmann::ordered_json& config);
};
[[nodiscard]] std::span<const LatentLayout> latent_layouts();
/// @throws Error{usage} listing them.
[[nodiscard]] const LatentLayout& find_layout(std::string_view name);

/// What config.json says of a latent; nothing if it is of an original. @throws Error{format} naming the key.
[[nodiscard]] std::optional<LatentConfig> read_latent_config(const nlohmann::ordered_json& config,
                                                             const AttentionShape& attention, std::int64_t layers,
                                                             const std::string& file);

}  // namespace mha2mla
