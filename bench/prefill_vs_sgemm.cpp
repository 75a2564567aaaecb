// Compares the speed of a prefill, including attention, with that of the machine's matrix products. The two alternate,
// so that clock and load are the same for both. Only useful operations are counted: of attention, the causal half.
//   prefill_vs_sgemm [THREADS [SEQ_LEN [ROUNDS]]]
#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <vector>

#include "mha2mla/runtime.hpp"
#include "mha2mla/threads.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace {

using namespace mha2mla;

/// The shape of SmolLM-135M.
test::TinyModel smollm_shape() {
    test::TinyModel shape;
    shape.layers = 30;
    shape.hidden = 576;
    shape.intermediate = 1536;
    shape.heads = 9;
    shape.kv_heads = 3;
    shape.head_dim = 64;
    shape.vocab = 49152;
    shape.dtype = "BF16";
    shape.tied = true;
    return shape;
}

/// Operations of one prefill without lm_head; a multiplication and its addition are two.
double operations(const ModelConfig& config, std::int64_t seq_len) {
    const auto tokens = static_cast<double>(seq_len);
    const auto query = static_cast<double>(config.num_attention_heads * config.head_dim);
    const auto key = static_cast<double>(config.num_key_value_heads * config.head_dim);
    const auto hidden = static_cast<double>(config.hidden_size);
    const double weights = 2 * hidden * (query + key) + 3 * hidden * static_cast<double>(config.intermediate_size);
    const double attention = 2 * query * (tokens + 1) / 2;  // logits and their sum of values, per token
    return 2 * tokens * static_cast<double>(config.num_hidden_layers) * (weights + attention);
}

template <typename Run>
double seconds(const Run& run) {
    const auto start = std::chrono::steady_clock::now();
    run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
    const std::int64_t seq_len = argc > 2 ? std::atoll(argv[2]) : 2048;
    const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
    const test::TemporaryDirectory directory;
    auto shape = smollm_shape();
    test::write_tiny_model(directory.path(), shape);
    const Model model = Model::open(directory.path());
    std::mt19937 random(1);
    std::vector<TokenId> ids(static_cast<std::size_t>(seq_len));
    for (auto& id : ids) id = static_cast<TokenId>(random() % static_cast<unsigned>(shape.vocab));
    Observer observer;

    constexpr int kSize = 2048;
    constexpr double kProduct = 2.0 * kSize * kSize * kSize;
    const std::vector<float> a(kSize * kSize, 0.5F), b(kSize * kSize, 0.25F);
    std::vector<float> c(kSize * kSize);
    std::vector<double> ratios;
    std::printf("%d threads, %lld tokens\n", threads, static_cast<long long>(seq_len));
    std::printf("prefill GFLOP/s  sgemm GFLOP/s  ratio\n");
    for (int round = -1; round < rounds; ++round) {  // the first one is a warm-up
        // sgemm with BLAS's own threads, several times around one prefill
        const auto product = [&] {
            openblas_set_num_threads(threads);
            return seconds([&] {
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kSize, kSize, kSize, 1.0F, a.data(), kSize,
                            b.data(), kSize, 0.0F, c.data(), kSize);
            });
        };
        double sgemm = std::min(product(), product());
        const double prefill_rate = [&] {
            const ThreadScope scope(threads);
            return operations(model.config, seq_len) / seconds([&] { (void)prefill(model, ids, seq_len, observer); });
        }();
        sgemm = std::min({sgemm, product(), product()});
        if (round < 0) continue;
        ratios.push_back(prefill_rate / (kProduct / sgemm));
        std::printf("%15.1f  %13.1f  %.3f\n", prefill_rate / 1e9, kProduct / sgemm / 1e9, ratios.back());
    }
    std::sort(ratios.begin(), ratios.end());
    std::printf("ratio: median %.3f, from %.3f to %.3f\n", ratios[ratios.size() / 2], ratios.front(), ratios.back());
}
