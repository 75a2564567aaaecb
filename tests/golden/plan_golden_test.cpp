// Parameter counts and cache sizes compared with those of the paper (MHA2MLA, tables 1 and 2).
#include <cmath>

#include "mha2mla/plan.hpp"
#include "support/shared.hpp"

namespace mha2mla::test {
namespace {

struct Row {
    const char* model;
    ModelConfig config;
    double original_millions;
    std::vector<double> converted_millions;  // at d_kv 32, 16, 8
    double unit;                             // precision of the paper's figures, in millions
};

ModelConfig smollm(std::int64_t hidden, std::int64_t intermediate, std::int64_t layers, std::int64_t heads,
                   std::int64_t kv_heads) {
    ModelConfig config;
    config.vocab_size = 49152;
    config.hidden_size = hidden;
    config.intermediate_size = intermediate;
    config.num_hidden_layers = layers;
    config.num_attention_heads = heads;
    config.num_key_value_heads = kv_heads;
    config.head_dim = hidden / heads;
    config.tie_word_embeddings = true;
    config.rules.layers.resize(static_cast<std::size_t>(layers));
    return config;
}

TEST(PlanGolden, ParametersOfThePaper) {
    const std::vector<Row> rows = {
        {"SmolLM-135M", smollm(576, 1536, 30, 9, 3), 134.52, {130.99, 129.64, 128.97}, 0.01},
        {"SmolLM-360M", smollm(960, 2560, 32, 15, 5), 361.82, {351.38, 347.38, 345.39}, 0.01},
        {"SmolLM-1.7B", smollm(2048, 8192, 24, 32, 32), 1710, {1670, 1590, 1560}, 10},
    };
    for (const auto& row : rows) {
        const std::int64_t ranks[] = {32, 16, 8};
        for (std::size_t i = 0; i < 3; ++i) {
            const Plan plan = plan_conversion(row.config, {8, ranks[i], Factorization::joint, 16});
            EXPECT_NEAR(static_cast<double>(plan.parameters_original) / 1e6, row.original_millions, 0.51 * row.unit)
                << row.model;
            EXPECT_NEAR(static_cast<double>(plan.parameters_converted) / 1e6, row.converted_millions[i],
                        0.51 * row.unit)
                << row.model << " at d_kv " << ranks[i];
        }
    }
}

TEST(PlanGolden, CacheReductionsOfThePaper) {
    ModelConfig llama = smollm(4096, 11008, 32, 32, 32);  // Llama-2-7B
    llama.vocab_size = 32000;
    llama.tie_word_embeddings = false;
    const double sixteen_bit[] = {0.6875, 0.8125, 0.8750};
    const double four_bit[] = {0.9219, 0.9531, 0.9687};
    for (const ModelConfig& config : {smollm(576, 1536, 30, 9, 3), smollm(960, 2560, 32, 15, 5), llama}) {
        const std::int64_t head = config.head_dim;
        const std::int64_t ranks[] = {head / 2, head / 4, head / 8};
        for (std::size_t i = 0; i < 3; ++i) {
            EXPECT_NEAR(plan_conversion(config, {head / 8, ranks[i], Factorization::joint, 16}).reduction(),
                        sixteen_bit[i], 1e-9);
            EXPECT_NEAR(plan_conversion(config, {head / 8, ranks[i], Factorization::joint, 4}).reduction(), four_bit[i],
                        5.1e-5);
        }
        EXPECT_EQ(default_rope_dim(config), head / 8);
        EXPECT_EQ(default_kv_rank(config), head / 2);
    }
    EXPECT_EQ(plan_conversion(llama, {16, 64, Factorization::joint, 16}).parameters_original, 6738415616);
}

}  // namespace
}  // namespace mha2mla::test
