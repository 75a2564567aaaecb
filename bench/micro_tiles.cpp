// Attention over a tile of 32 tokens that lies in the cache, in float32 and in BF16.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#include "forward/attend.hpp"

namespace {

using namespace mha2mla;
constexpr std::int64_t kTokens = 32;
constexpr std::int64_t kRows = 32;
constexpr std::int64_t kDim = 96;

/// Argument: bytes of a number, 2 where the processor has AVX512_BF16.
const TileArithmetic* arithmetic(benchmark::State& state) {
    const TileArithmetic* found = state.range(0) == 2 ? bf16_tiles() : &float_tiles();
    if (found == nullptr) state.SkipWithError("no AVX512_BF16");
    return found;
}

void TileLogits(benchmark::State& state) {
    const TileArithmetic* loops = arithmetic(state);
    const std::vector<std::byte> tile(kTokens * kDim * 4), q(kRows * kDim * 4);
    std::vector<float> logits(kTokens * kRows);
    for (auto _ : state) {
        loops->panel_logits(kTokens, panels_of(kRows), kDim, {tile.data(), kDim * loops->number_bytes}, q.data(),
                            kDim * kPanelRows * loops->number_bytes, {logits.data(), kRows});
        benchmark::ClobberMemory();
    }
}
BENCHMARK(TileLogits)->ArgName("bytes")->Arg(4)->Arg(2);

void TileWeightedSums(benchmark::State& state) {
    const TileArithmetic* loops = arithmetic(state);
    const std::vector<std::byte> tile(kTokens * kDim * 4);
    std::vector<std::byte> scratch(tile.size());
    const std::vector<float> weights(kTokens * kRows);
    std::vector<float> out(kRows * kDim);
    for (auto _ : state) {
        const TileIn values =
            loops->prepare_values(kTokens, kDim, {tile.data(), kDim * loops->number_bytes}, scratch.data());
        loops->weigh(kTokens, kRows, kDim, {weights.data(), kRows}, values, 0, {out.data(), kDim});
        benchmark::ClobberMemory();
    }
}
BENCHMARK(TileWeightedSums)->ArgName("bytes")->Arg(4)->Arg(2);

}  // namespace
