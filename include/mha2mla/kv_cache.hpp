#pragma once
/// Formats of KV caches.

#include <array>
#include <cstdint>
#include <string_view>

#include "mha2mla/model.hpp"
#include "mha2mla/table.hpp"

namespace mha2mla {

enum class KvCacheFormat : std::uint8_t {
    f32,
    bf16,
    f16,
    int8_affine,
    int8_hqq,
    int4_affine,
    int4_hqq,
    int2_affine,
    int2_hqq,
};

/// How the offset of a quantised group is computed; the step is always (max - min) / (2^bits - 1).
enum class Quantizer : std::uint8_t {
    none,
    affine,  ///< the minimum, as in Quanto
    hqq,     ///< half-quadratic optimisation (Badri & Shaji 2023): an l_p norm of the error with p = 0.7
};

struct KvCacheFormatRow {
    KvCacheFormat format;
    std::string_view name;
    int bits;
    Quantizer quantizer;
};
inline constexpr std::array<KvCacheFormatRow, 9> kKvCacheFormats = {{
    {KvCacheFormat::f32, "f32", 32, Quantizer::none},
    {KvCacheFormat::bf16, "bf16", 16, Quantizer::none},
    {KvCacheFormat::f16, "f16", 16, Quantizer::none},
    {KvCacheFormat::int8_affine, "int8-affine", 8, Quantizer::affine},
    {KvCacheFormat::int8_hqq, "int8-hqq", 8, Quantizer::hqq},
    {KvCacheFormat::int4_affine, "int4-affine", 4, Quantizer::affine},
    {KvCacheFormat::int4_hqq, "int4-hqq", 4, Quantizer::hqq},
    {KvCacheFormat::int2_affine, "int2-affine", 2, Quantizer::affine},
    {KvCacheFormat::int2_hqq, "int2-hqq", 2, Quantizer::hqq},
}};
static_assert(in_order(kKvCacheFormats, &KvCacheFormatRow::format));
[[nodiscard]] constexpr const KvCacheFormatRow& row_of(KvCacheFormat format) {
    return kKvCacheFormats.at(static_cast<std::size_t>(format));
}

/// The element type of the checkpoint's weights, as a cache format.
[[nodiscard]] KvCacheFormat default_kv_cache_format(const Model& model);

struct KvCacheOptions {
    KvCacheFormat format = KvCacheFormat::f32;
    std::int64_t group_size = 64;  // neighbouring numbers of a token that share a step and an offset, 16 bits each
    std::int64_t window = 128;     // newest tokens, the current one included, that a quantised cache keeps in BF16
};

struct KvCacheSize {
    std::uint64_t allocated = 0;         // bytes of all sequences and layers, window and scales included
    std::uint64_t window = 0;            // bytes of these for the newest tokens
    std::int64_t tokens = 0;             // capacity over all sequences
    double bytes_per_token = 0;          // of a token outside the window, over all layers
    double nominal_bytes_per_token = 0;  // bits of the format times numbers, as in the paper
};

}  // namespace mha2mla
