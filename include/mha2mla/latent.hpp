#pragma once
/// What the object `mha2mla` in a converted checkpoint's config.json says.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mha2mla {

/// Which of NoPE keys and values go through a latent, and whether they share it (MHA2MLA, section 3.2).
/// `whitened` is `joint` with another measure of the error: nothing differs once the weights are there.
enum class Factorization : std::uint8_t { joint, whitened, split, key, value, none };

struct FactorizationRow {
    Factorization factorization;
    std::string_view name;            // of --svd
    std::string_view reference_name;  // `svd_init_method` of the reference implementation
    std::string_view what;
    /// Whether it goes by the moments of layer inputs.
    [[nodiscard]] constexpr bool needs_moments() const { return factorization == Factorization::whitened; }
};
inline constexpr std::array<FactorizationRow, 6> kFactorizations = {{
    {Factorization::joint, "joint", "joint", "NoPE keys and values share one latent (the paper's default)"},
    {Factorization::whitened, "whitened", "joint",
     "as joint, with the least error on your text instead of in the weights"},
    {Factorization::split, "split", "split", "a latent of half the width each for NoPE keys and for values"},
    {Factorization::key, "key", "only_key", "only NoPE keys go through a latent; values stay whole"},
    {Factorization::value, "value", "only_value", "only values go through a latent; NoPE keys stay whole"},
    {Factorization::none, "none", "none", "partial RoPE only, nothing is factorised"},
}};
[[nodiscard]] constexpr const FactorizationRow& row_of(Factorization factorization) {
    return kFactorizations.at(static_cast<std::size_t>(factorization));
}

/// Whether NoPE keys and values share one latent.
[[nodiscard]] constexpr bool shares_latent(Factorization factorization) {
    return factorization == Factorization::joint || factorization == Factorization::whitened;
}

/// The rotary pairs that keep RoPE: pairs[layer][kv_head] holds `rope_dim / 2` ascending pair indices.
struct RopeSelection {
    std::string strategy;
    std::int64_t rope_dim = 0;
    std::vector<std::vector<std::vector<std::int64_t>>> pairs;
};

struct LatentConfig {
    RopeSelection rope;
    Factorization factorization = Factorization::joint;
    std::int64_t kv_rank = 0;  // d_kv: latent width per KV head, over keys and values together
};

/// Latent widths of one layer, in numbers per token.
struct LatentWidths {
    std::int64_t key = 0;     // 0: NoPE keys are not factorised
    std::int64_t value = 0;   // 0: values are not factorised
    std::int64_t cached = 0;  // what a cache must keep beside the rotated keys
};
/// @param num_kv_heads, head_dim, rope_dim, kv_rank as in the configuration.
[[nodiscard]] LatentWidths latent_widths(Factorization factorization, std::int64_t num_kv_heads, std::int64_t head_dim,
                                         std::int64_t rope_dim, std::int64_t kv_rank);

}  // namespace mha2mla
