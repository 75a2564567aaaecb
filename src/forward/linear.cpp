#include "linear.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../linalg/amx.hpp"
#include "../linalg/gemm.hpp"
#include "../linalg/narrow.hpp"
#include "../support/parallel.hpp"
#include "mha2mla/threads.hpp"

namespace mha2mla {
namespace {

// Tiles are large enough for the full speed of BLAS on one core, and small enough to balance the load of the cores.
// They do not depend on the number of threads, so the results do not either.
constexpr std::int64_t kTokenTile = 512;
constexpr std::int64_t kMostRows = 512;
constexpr std::int64_t kRowStep = 16;  // step of BLAS's inner loops

/// The rows of a tile: equal shares, so that the last tile is not small.
std::int64_t tile_rows(std::int64_t out_features) {
    const std::int64_t tiles = (out_features + kMostRows - 1) / kMostRows;
    const std::int64_t share = (out_features + tiles - 1) / tiles;
    return (share + kRowStep - 1) / kRowStep * kRowStep;
}

/// The tokens of a tile on AMX, where sums do not depend on it: twice as many if that leaves every thread two, since a
/// weight is rearranged for each tile.
std::int64_t amx_tile_tokens(std::int64_t tokens, std::int64_t row_tiles) {
    return row_tiles * (tokens / (2 * kTokenTile)) >= 2 * thread_count() ? 2 * kTokenTile : kTokenTile;
}

/// The same where a tile has all columns.
std::int64_t amx_strip(std::int64_t tokens) {
    constexpr std::int64_t kStep = 32;  // whole blocks of tiles
    const std::int64_t share = tokens / (2 * thread_count()) / kStep * kStep;
    return std::clamp(share, kStep, 2 * kTokenTile);
}

/// Rows [first, first + rows) of a weight as float32: in place if the file holds aligned floats.
const float* weight_rows(const TensorView& weight, std::int64_t first, std::int64_t rows, std::vector<float>& scratch) {
    const auto cols = static_cast<std::uint64_t>(weight.shape[1]);
    const auto start = static_cast<std::uint64_t>(first) * cols;
    if (weight.dtype == Dtype::f32) {
        const std::byte* data = weight.data.data() + start * sizeof(float);
        if (reinterpret_cast<std::uintptr_t>(data) % alignof(float) == 0) return reinterpret_cast<const float*>(data);
    }
    scratch.resize(static_cast<std::size_t>(rows) * cols);
    to_float(weight, start, scratch);
    return scratch.data();
}

// A decoding step uses each weight for few tokens, so converting a tile in memory would cost more than the product.
constexpr std::int64_t kFewTokens = 8;
constexpr std::int64_t kFewTokensRows = 32;

/// Rows [first, first + rows) of y = x·Wᵀ + b.
void rows_of_few(const LinearProduct& product, std::int64_t tokens, const float* x, std::int64_t first,
                 std::int64_t rows, std::vector<float>& scratch) {
    const LinearView& view = *product.view;
    const TensorView& weight = *view.weight;
    const std::int64_t in = view.in_features(), out = view.out_features();
    const std::byte* stored =
        weight.data.data() + static_cast<std::uint64_t>(first * in) * dtype_bits(weight.dtype) / 8;
    const MatrixOut target{product.y + first, out};
    if (weight.dtype == Dtype::bf16) {
        narrow_abt_bf16(tokens, rows, in, {x, in}, stored, target);
    } else if (weight.dtype == Dtype::f16) {
        narrow_abt_f16(tokens, rows, in, {x, in}, stored, target);
    } else {
        const float* floats = weight_rows(weight, first, rows, scratch);
        narrow_abt_f32(tokens, rows, in, {x, in}, reinterpret_cast<const std::byte*>(floats), target);
    }
    if (view.bias == nullptr) return;
    scratch.resize(static_cast<std::size_t>(rows));
    to_float(*view.bias, static_cast<std::uint64_t>(first), scratch);
    for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t i = 0; i < rows; ++i) product.y[t * out + first + i] += scratch[static_cast<std::size_t>(i)];
    }
}

/// All products in one loop: a layer's maps are too small for the threads to be woken for each.
void linear_of_few(std::span<const LinearProduct> products, std::int64_t tokens, const float* x) {
    struct Tile {
        const LinearProduct* product;
        std::int64_t first;
    };
    std::vector<Tile> tiles;
    for (const LinearProduct& product : products) {
        for (std::int64_t row = 0; row < product.view->out_features(); row += kFewTokensRows) {
            tiles.push_back({&product, row});
        }
    }
    parallel_for(std::ssize(tiles), [&](std::int64_t i, std::vector<float>& scratch) {
        const Tile& tile = tiles[static_cast<std::size_t>(i)];
        const std::int64_t rows = std::min(kFewTokensRows, tile.product->view->out_features() - tile.first);
        rows_of_few(*tile.product, tokens, x, tile.first, rows, scratch);
    });
}

void linear_of_many(const LinearView& view, std::int64_t tokens, const float* x, float* y, ProductPrecision precision) {
    if (view.out_features() == 0) return;  // no RoPE rows, or no others
    const std::int64_t in = view.in_features();
    const std::int64_t out = view.out_features();
    std::vector<float> bias(static_cast<std::size_t>(view.bias != nullptr ? out : 0));
    if (view.bias != nullptr) to_float(*view.bias, 0, bias);
    const std::int64_t most_rows = tile_rows(out);
    const std::int64_t row_tiles = (out + most_rows - 1) / most_rows;
    const bool on_amx = precision == ProductPrecision::split && amx_pays(tokens, out, in);
    const std::int64_t most_tokens = on_amx ? amx_tile_tokens(tokens, row_tiles) : kTokenTile;
    const std::int64_t token_tiles = (tokens + most_tokens - 1) / most_tokens;
    parallel_for(row_tiles * token_tiles, [&](std::int64_t tile, std::vector<float>& scratch) {
        const std::int64_t row = tile / token_tiles * most_rows;
        const std::int64_t token = tile % token_tiles * most_tokens;
        const std::int64_t rows = std::min(most_rows, out - row);
        const std::int64_t count = std::min(most_tokens, tokens - token);
        const float* weight = weight_rows(*view.weight, row, rows, scratch);
        float* target = y + token * out + row;
        for (std::int64_t t = 0; t < count && view.bias != nullptr; ++t) {
            std::copy_n(bias.data() + row, rows, target + t * out);
        }
        const bool add = view.bias != nullptr;
        if (on_amx)
            return amx_gemm(count, rows, in, 1.0F, {{x + token * in, in}}, {{weight, in}, true}, add, {target, out});
        multiply_abt(count, rows, in, 1.0F, {x + token * in, in}, {weight, in}, add ? 1.0F : 0.0F, {target, out});
    });
}

}  // namespace

std::int64_t linear_scratch(std::int64_t in_features) { return kMostRows * in_features; }

void linear(std::span<const LinearProduct> products, std::int64_t tokens, const float* x, ProductPrecision precision) {
    if (tokens <= kFewTokens) return linear_of_few(products, tokens, x);
    for (const LinearProduct& product : products) linear_of_many(*product.view, tokens, x, product.y, precision);
}

void linear(const LinearView& view, std::int64_t tokens, const float* x, float* y, ProductPrecision precision) {
    const LinearProduct product{&view, y};
    linear({&product, 1}, tokens, x, precision);
}

void linear_back(const LinearView& view, std::int64_t tokens, const float* dy, bool add, float* dx) {
    const std::int64_t in = view.in_features();
    const std::int64_t out = view.out_features();
    const bool on_amx = amx_pays(tokens, in, out);
    const std::int64_t strip =
        on_amx ? amx_strip(tokens) : std::clamp<std::int64_t>(tokens / 4, kRowStep, kTokenTile / 2);
    parallel_for((tokens + strip - 1) / strip, [&](std::int64_t i, std::vector<float>& scratch) {
        const std::int64_t token = i * strip;
        const std::int64_t count = std::min(strip, tokens - token);
        for (std::int64_t row = 0; row < out; row += kMostRows) {
            const std::int64_t rows = std::min(kMostRows, out - row);
            const MatrixIn weight{weight_rows(*view.weight, row, rows, scratch), in};
            const MatrixIn from{dy + token * out + row, out};
            const MatrixOut to{dx + token * in, in};
            const bool adds = row > 0 || add;
            if (on_amx) {
                amx_gemm(count, in, rows, 1.0F, {from}, {weight}, adds, to);
            } else {
                multiply_ab(count, in, rows, 1.0F, from, weight, adds ? 1.0F : 0.0F, to);
            }
        }
    });
}

}  // namespace mha2mla
