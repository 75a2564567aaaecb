#include "linear.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../linalg/gemm.hpp"
#include "../linalg/narrow.hpp"
#include "../support/parallel.hpp"

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
constexpr std::int64_t kFewTokensRows = 64;

void linear_of_few(const LinearView& view, std::int64_t tokens, const float* x, float* y) {
    const std::int64_t in = view.in_features();
    const std::int64_t out = view.out_features();
    std::vector<float> bias(view.bias != nullptr ? static_cast<std::size_t>(out) : 0);
    if (view.bias != nullptr) to_float(*view.bias, 0, bias);
    parallel_for((out + kFewTokensRows - 1) / kFewTokensRows, [&](std::int64_t tile, std::vector<float>& scratch) {
        const std::int64_t row = tile * kFewTokensRows;
        const std::int64_t rows = std::min(kFewTokensRows, out - row);
        const MatrixOut target{y + row, out};
        if (view.weight->dtype == Dtype::bf16) {
            narrow_abt_bf16(tokens, rows, in, {x, in}, view.weight->data.data() + 2 * row * in, target);
        } else {
            narrow_abt(tokens, rows, in, {x, in}, {weight_rows(*view.weight, row, rows, scratch), in}, false, target);
        }
        for (std::int64_t t = 0; t < tokens && view.bias != nullptr; ++t) {
            for (std::int64_t i = row; i < row + rows; ++i) y[t * out + i] += bias[static_cast<std::size_t>(i)];
        }
    });
}

}  // namespace

std::int64_t linear_scratch(std::int64_t in_features) { return kMostRows * in_features; }

void linear(const LinearView& view, std::int64_t tokens, const float* x, float* y) {
    if (view.out_features() == 0) return;  // no RoPE rows, or no others
    if (tokens <= kFewTokens) return linear_of_few(view, tokens, x, y);
    const std::int64_t in = view.in_features();
    const std::int64_t out = view.out_features();
    std::vector<float> bias(static_cast<std::size_t>(out));
    if (view.bias != nullptr) to_float(*view.bias, 0, bias);
    const std::int64_t most_rows = tile_rows(out);
    const std::int64_t row_tiles = (out + most_rows - 1) / most_rows;
    const std::int64_t token_tiles = (tokens + kTokenTile - 1) / kTokenTile;
    parallel_for(row_tiles * token_tiles, [&](std::int64_t tile, std::vector<float>& scratch) {
        const std::int64_t row = tile / token_tiles * most_rows;
        const std::int64_t token = tile % token_tiles * kTokenTile;
        const std::int64_t rows = std::min(most_rows, out - row);
        const std::int64_t count = std::min(kTokenTile, tokens - token);
        const float* weight = weight_rows(*view.weight, row, rows, scratch);
        float* target = y + token * out + row;
        // BLAS with beta 1 is faster than with beta 0.
        for (std::int64_t t = 0; t < count; ++t) std::copy_n(bias.data() + row, rows, target + t * out);
        multiply_abt(count, rows, in, 1.0F, {x + token * in, in}, {weight, in}, 1.0F, {target, out});
    });
}

void linear_back(const LinearView& view, std::int64_t tokens, const float* dy, bool add, float* dx) {
    const std::int64_t in = view.in_features();
    const std::int64_t out = view.out_features();
    const std::int64_t strip = std::clamp<std::int64_t>(tokens / 4, kRowStep, kTokenTile / 2);
    parallel_for((tokens + strip - 1) / strip, [&](std::int64_t i, std::vector<float>& scratch) {
        const std::int64_t token = i * strip;
        const std::int64_t count = std::min(strip, tokens - token);
        for (std::int64_t row = 0; row < out; row += kMostRows) {
            const std::int64_t rows = std::min(kMostRows, out - row);
            const float* weight = weight_rows(*view.weight, row, rows, scratch);
            multiply_ab(count, in, rows, 1.0F, {dy + token * out + row, out}, {weight, in},
                        row > 0 || add ? 1.0F : 0.0F, {dx + token * in, in});
        }
    });
}

}  // namespace mha2mla
