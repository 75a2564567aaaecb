// Benchmarks of reading and writing. The files are in the system's temporary directory and in the page cache.
#include <benchmark/benchmark.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/tokenizer.hpp"
#include "temporary.hpp"

namespace {

using namespace mha2mla;
constexpr std::int64_t kElements = 1 << 24;

std::vector<float> random_floats(std::int64_t count) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal(0.0F, 0.02F);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(generator);
    return values;
}

std::string dtype_label(benchmark::State& state) { return std::string(dtype_name(static_cast<Dtype>(state.range(0)))); }

/// The bytes of a conversion of dtypes: those read plus those written.
void set_bytes(benchmark::State& state, Dtype dtype) {
    state.SetBytesProcessed(state.iterations() * kElements *
                            static_cast<std::int64_t>(dtype_bits(dtype) / 8 + sizeof(float)));
}

void ToFloat(benchmark::State& state) {
    const auto dtype = static_cast<Dtype>(state.range(0));
    const auto bytes = from_floats(random_floats(kElements), dtype, "benchmark");
    const TensorView tensor{"weight", dtype, {kElements}, bytes, "memory", 0};
    std::vector<float> values(static_cast<std::size_t>(kElements));
    for (auto _ : state) {
        to_float(tensor, 0, values);
        benchmark::ClobberMemory();
    }
    set_bytes(state, dtype);
    state.SetLabel(dtype_label(state));
}

void FromFloats(benchmark::State& state) {
    const auto dtype = static_cast<Dtype>(state.range(0));
    const auto values = random_floats(kElements);
    for (auto _ : state) benchmark::DoNotOptimize(from_floats(values, dtype, "benchmark"));
    set_bytes(state, dtype);
    state.SetLabel(dtype_label(state));
}

BENCHMARK(ToFloat)
    ->ArgName("dtype")
    ->Arg(static_cast<int>(Dtype::bf16))
    ->Arg(static_cast<int>(Dtype::f16))
    ->Unit(benchmark::kMillisecond);
BENCHMARK(FromFloats)
    ->ArgName("dtype")
    ->Arg(static_cast<int>(Dtype::bf16))
    ->Arg(static_cast<int>(Dtype::f16))
    ->Unit(benchmark::kMillisecond);

/// `count` BF16 tensors of `rows` x 1024 in shards of 64 MB.
std::vector<TensorSpec> make_specs(std::int64_t count, std::int64_t rows) {
    std::vector<TensorSpec> specs;
    for (std::int64_t i = 0; i < count; ++i) {
        specs.push_back({"model.layers." + std::to_string(i) + ".self_attn.q_proj.weight", Dtype::bf16, {rows, 1024}});
    }
    return specs;
}

void write_checkpoint(const std::filesystem::path& directory, const std::vector<TensorSpec>& specs) {
    const auto& shape = specs.front().shape;
    const auto data = from_floats(random_floats(shape[0] * shape[1]), Dtype::bf16, "benchmark");
    CheckpointWriter writer(directory, specs, {64'000'000, true});
    for (const auto& spec : specs) writer.write(spec.name, data);
    writer.commit();
}

/// Headers and their checks. Argument: number of tensors.
void OpenCheckpoint(benchmark::State& state) {
    const test::TemporaryDirectory directory;
    write_checkpoint(directory.path(), make_specs(state.range(0), 1));
    for (auto _ : state) benchmark::DoNotOptimize(Checkpoint::open(directory.path()));
    state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(OpenCheckpoint)->ArgName("tensors")->Arg(300)->Arg(10'000)->Unit(benchmark::kMillisecond);

std::uint64_t sum_of(const Checkpoint& checkpoint) {
    std::uint64_t sum = 0;
    for (const auto& file : checkpoint.files()) {
        for (const auto& tensor : file.tensors()) {
            for (std::size_t at = 0; at + sizeof(std::uint64_t) <= tensor.data.size(); at += sizeof(std::uint64_t)) {
                std::uint64_t word = 0;
                std::memcpy(&word, tensor.data.data() + at, sizeof word);
                sum += word;
            }
        }
    }
    return sum;
}

constexpr std::int64_t kTensors = 64;  // of 4 MiB
constexpr std::int64_t kRows = 2048;
constexpr std::int64_t kBytes = kTensors * kRows * 1024 * 2;

/// Opens a checkpoint and reads every byte.
void ReadCheckpoint(benchmark::State& state) {
    const test::TemporaryDirectory directory;
    write_checkpoint(directory.path(), make_specs(kTensors, kRows));
    for (auto _ : state) benchmark::DoNotOptimize(sum_of(Checkpoint::open(directory.path())));
    state.SetBytesProcessed(state.iterations() * kBytes);
}
BENCHMARK(ReadCheckpoint)->Unit(benchmark::kMillisecond);

/// Writes from memory to disk, including the flush.
void WriteCheckpoint(benchmark::State& state) {
    const test::TemporaryDirectory directory;
    const auto specs = make_specs(kTensors, kRows);
    const auto data = from_floats(random_floats(kRows * 1024), Dtype::bf16, "benchmark");
    for (auto _ : state) {
        CheckpointWriter writer(directory.path(), specs, {64'000'000, true});
        for (const auto& spec : specs) writer.write(spec.name, data);
        writer.commit();
    }
    state.SetBytesProcessed(state.iterations() * kBytes);
}
BENCHMARK(WriteCheckpoint)->Unit(benchmark::kMillisecond)->UseRealTime();

/// Copies from file to file, including the flush.
void CopyCheckpoint(benchmark::State& state) {
    const test::TemporaryDirectory directory;
    const auto specs = make_specs(kTensors, kRows);
    write_checkpoint(directory / "source", specs);
    const auto source = Checkpoint::open(directory / "source");
    for (auto _ : state) {
        CheckpointWriter writer(directory / "copy", specs, {64'000'000, true});
        for (const auto& file : source.files()) {
            for (const auto& tensor : file.tensors()) writer.copy(tensor.name, tensor, file);
        }
        writer.commit();
    }
    state.SetBytesProcessed(state.iterations() * kBytes);
}
BENCHMARK(CopyCheckpoint)->Unit(benchmark::kMillisecond)->UseRealTime();

/// The example's tokenizer.json, extended to `vocabulary` tokens by random merges.
std::string grown_tokenizer(std::size_t vocabulary) {
    std::ifstream in(std::filesystem::path(MHA2MLA_EXAMPLES_DIR) / "kjv-1.8M/tokenizer.json");
    auto json = nlohmann::json::parse(in);
    auto& model = json["model"];
    std::vector<std::string> tokens;
    for (const auto& [token, id] : model["vocab"].items()) {
        if (token.front() != '<') tokens.push_back(token);
    }
    std::mt19937 generator(1);
    while (model["vocab"].size() < vocabulary) {
        const std::string& left = tokens[generator() % tokens.size()];
        const std::string& right = tokens[generator() % tokens.size()];
        const std::string merged = left + right;
        if (merged.size() > 24 || model["vocab"].contains(merged)) continue;
        model["vocab"][merged] = model["vocab"].size();
        model["merges"].push_back(left + ' ' + right);
        tokens.push_back(merged);
    }
    return json.dump();
}

void LoadTokenizer(benchmark::State& state) {
    const std::string text = grown_tokenizer(static_cast<std::size_t>(state.range(0)));
    for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::parse(text, "tokenizer.json"));
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK(LoadTokenizer)->ArgName("vocabulary")->Arg(1024)->Arg(128'000)->Unit(benchmark::kMillisecond);

}  // namespace
