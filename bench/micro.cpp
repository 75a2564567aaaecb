// Benchmarks of single stages, for comparing two builds on one machine.
#include <benchmark/benchmark.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "mha2mla/factorize.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/threads.hpp"
#include "mha2mla/tokenizer.hpp"

namespace {

using namespace mha2mla;
const std::filesystem::path kExamples = MHA2MLA_EXAMPLES_DIR;

/// Arguments: rows, columns, rank, method (0: standard, 1: strict, 2: fast).
void TruncatedSvd(benchmark::State& state) {
    const ThreadScope threads(1);
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    const Matrix a = Matrix::NullaryExpr(state.range(0), state.range(1), [&] { return normal(generator); });
    const auto method = static_cast<SvdMethod>(state.range(3));
    for (auto _ : state) {
        benchmark::DoNotOptimize(truncated_svd(a, state.range(2), {SigmaPlacement::balanced, method}));
    }
}
BENCHMARK(TruncatedSvd)
    ->ArgNames({"rows", "columns", "rank", "method"})
    ->Args({360, 576, 96, 0})  // SmolLM-135M
    ->Args({360, 576, 96, 1})
    ->Args({1920, 4096, 512, 0})  // Llama-3-8B
    ->Args({1920, 4096, 512, 1})
    ->Args({3840, 2048, 1024, 0})  // SmolLM-1.7B
    ->Args({3840, 2048, 1024, 1})
    ->Unit(benchmark::kMillisecond);

void Encode(benchmark::State& state) {
    const auto tokenizer = Tokenizer::load(kExamples / "kjv-1.8M/tokenizer.json");
    std::ifstream in(kExamples / "kjv-calibration.txt", std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    for (auto _ : state) benchmark::DoNotOptimize(tokenizer.encode(text, false));
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK(Encode)->Unit(benchmark::kMillisecond);

/// Argument: sequence length; 4096 tokens in all.
void Prefill(benchmark::State& state) {
    const ThreadScope threads(0);
    const Model model = Model::open(kExamples / "kjv-1.8M");
    const std::vector<TokenId> ids(4096, 42);
    Observer observer;
    for (auto _ : state) benchmark::DoNotOptimize(prefill(model, ids, state.range(0), observer));
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(ids.size()));
}
BENCHMARK(Prefill)->ArgName("seq_len")->Arg(128)->Arg(512)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
