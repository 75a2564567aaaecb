// Measures the attention of one decoding step over a KV cache, for original and converted models, by format and
// context. Prints JSON.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "forward/cached_attention.hpp"
#include "mha2mla/threads.hpp"
#include "support/parallel.hpp"

namespace mha2mla {
namespace {

struct Shape {
    const char* name;
    std::int64_t heads, kv_heads, head_dim, rope_dim, kv_rank;
};
constexpr Shape kShapes[] = {
    {"llama3-8b", 32, 8, 128, 16, 32},
    {"llama2-7b", 32, 32, 128, 16, 16},
    {"smollm-135m", 9, 3, 64, 8, 32},
};

CacheLayout layout_of(const Shape& shape, bool converted) {
    ModelConfig config;
    config.num_attention_heads = shape.heads;
    config.num_key_value_heads = shape.kv_heads;
    config.head_dim = shape.head_dim;
    if (converted) {
        config.latent.emplace();
        config.latent->rope.rope_dim = shape.rope_dim;
        config.latent->kv_rank = shape.kv_rank;
    }
    return cache_layout(config, 64);
}

/// Seconds of one layer's attention: the minimum of `repeats` rounds over caches that together exceed the processor's
/// cache.
nlohmann::json measure(const Shape& shape, bool converted, KvCacheFormat format, std::int64_t context, int repeats) {
    const CacheLayout layout = layout_of(shape, converted);
    KvCacheOptions options;
    options.format = format;
    LayerCache first(layout, options, context, 0);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> rows(static_cast<std::size_t>(256 * layout.width));
    for (auto& value : rows) value = normal(random);
    for (std::int64_t token = 0; token < context; token += 256)
        first.append(rows.data(), std::min<std::int64_t>(256, context - token));
    first.settle();
    const std::uint64_t bytes = first.old().allocated_bytes() + first.recent().allocated_bytes();
    const std::size_t layers = std::clamp<std::size_t>((std::size_t{192} << 20U) / bytes, 1, 32);
    const std::vector<LayerCache> caches(layers, first);
    std::vector<float> out(static_cast<std::size_t>(shape.heads * layout.value_dim()));
    AttentionQueries queries{nullptr, 1, {}, out.data()};
    std::vector<std::vector<float>> q;
    for (const auto& segment : layout.segments) {
        q.emplace_back(static_cast<std::size_t>(shape.heads * segment.dim));
        for (auto& value : q.back()) value = normal(random) / std::sqrt(static_cast<float>(shape.head_dim));
    }
    for (const auto& part : q) queries.q.push_back(part.data());
    double best = 1e9;
    for (int round = 0; round < repeats; ++round) {
        const auto start = std::chrono::steady_clock::now();
        for (const auto& cache : caches) {
            queries.cache = &cache;
            cached_attention(layout, shape.heads, {&queries, 1});
        }
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::min(best, seconds.count() / static_cast<double>(layers));
    }
    return {{"shape", shape.name},
            {"checkpoint", converted ? "converted" : "original"},
            {"format", row_of(format).name},
            {"context", context},
            {"seconds", best},
            {"bytes", bytes}};
}

/// The memory bandwidth of all threads in bytes per second: the best of several rounds over more bytes than the caches
/// hold.
double read_rate() {
    constexpr std::int64_t kPiece = std::int64_t{1} << 18U;
    const std::vector<std::uint64_t> numbers((std::size_t{256} << 20U) / sizeof(std::uint64_t), 1);
    const auto pieces = static_cast<std::int64_t>(numbers.size()) / kPiece;
    std::vector<std::uint64_t> sums(static_cast<std::size_t>(pieces));
    double best = 0;
    for (int round = 0; round < 6; ++round) {
        const auto start = std::chrono::steady_clock::now();
        parallel_for(pieces, [&](std::int64_t piece, std::vector<float>&) {
            const std::uint64_t* from = numbers.data() + piece * kPiece;
            std::uint64_t parts[32] = {};
            for (std::int64_t i = 0; i < kPiece; i += 32) {
                for (std::int64_t j = 0; j < 32; ++j) parts[j] += from[i + j];
            }
            sums[static_cast<std::size_t>(piece)] = std::accumulate(parts, parts + 32, std::uint64_t{0});
        });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        const auto read = std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
        best = std::max(best, static_cast<double>(read * sizeof(std::uint64_t)) / seconds.count());
    }
    return best;
}

}  // namespace
}  // namespace mha2mla

int main(int argc, char** argv) {
    CLI::App app("Times a decoding step's attention over KV caches of random numbers");
    int threads = 0;
    int repeats = 5;
    std::vector<std::int64_t> contexts = {1024, 2048, 4096, 8192, 16384, 32768};
    std::vector<std::string> formats = {"f32", "bf16", "int8-affine", "int4-affine"};
    std::vector<std::string> shapes = {"llama3-8b", "llama2-7b", "smollm-135m"};
    std::vector<std::string> checkpoints = {"original", "converted"};
    app.add_option("--threads", threads);
    app.add_option("--repeats", repeats);
    app.add_option("--context", contexts);
    app.add_option("--format", formats);
    app.add_option("--shape", shapes);
    app.add_option("--checkpoint", checkpoints);
    CLI11_PARSE(app, argc, argv);
    const mha2mla::ThreadScope scope(threads);
    nlohmann::json results = nlohmann::json::array();
    for (const auto& shape : mha2mla::kShapes) {
        if (std::find(shapes.begin(), shapes.end(), shape.name) == shapes.end()) continue;
        for (const auto context : contexts) {
            for (const auto& row : mha2mla::kKvCacheFormats) {
                if (std::find(formats.begin(), formats.end(), row.name) == formats.end()) continue;
                for (const std::string& checkpoint : checkpoints) {
                    const bool converted = checkpoint == "converted";
                    results.push_back(mha2mla::measure(shape, converted, row.format, context, repeats));
                }
            }
        }
    }
    const nlohmann::json output = {{"read_bytes_per_second", mha2mla::read_rate()}, {"results", results}};
    std::printf("%s\n", output.dump(1).c_str());
}
