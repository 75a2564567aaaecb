#include "mha2mla/error.hpp"
#include "mha2mla/plan.hpp"
#include "support/expect_error.hpp"

namespace mha2mla::test {
namespace {

ModelConfig tiny() {
    ModelConfig config;
    config.vocab_size = 100;
    config.hidden_size = 24;
    config.intermediate_size = 40;
    config.num_hidden_layers = 3;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.head_dim = 8;
    config.rules.layers.resize(3);
    return config;
}

TEST(Plan, CacheWidthOfEveryFactorization) {
    // Two KV heads of 8, rope-dim 2: rotated keys 4, NoPE keys 12, values 16.
    const auto numbers = [](Factorization f) {
        return plan_conversion(tiny(), {2, 4, f, 16}).converted_numbers_per_token;
    };
    EXPECT_EQ(numbers(Factorization::joint), 3 * (4 + 8));
    EXPECT_EQ(numbers(Factorization::split), 3 * (4 + 8));
    EXPECT_EQ(numbers(Factorization::key), 3 * (4 + 8 + 16));
    EXPECT_EQ(numbers(Factorization::value), 3 * (4 + 12 + 8));
    EXPECT_EQ(numbers(Factorization::none), 3 * (4 + 12 + 16));
}

TEST(Plan, KvBitsOnlyShrinkTheConvertedCache) {
    const Plan sixteen = plan_conversion(tiny(), {2, 4, Factorization::joint, 16});
    const Plan four = plan_conversion(tiny(), {2, 4, Factorization::joint, 4});
    EXPECT_EQ(four.original_bytes_per_token, sixteen.original_bytes_per_token);
    EXPECT_EQ(four.converted_bytes_per_token * 4, sixteen.converted_bytes_per_token);
    EXPECT_EQ(sixteen.original_bytes_per_token, 3 * 2 * 2 * 8 * 2);
}

TEST(Plan, ImpossibleRanksNameTheLargest) {
    const auto plan = [](PlanOptions options) { return [=] { (void)plan_conversion(tiny(), options); }; };
    // joint: min(rows 28, hidden 24) / 2 heads
    expect_error(ErrorCode::usage, {"kv-rank 13", "at most 12"}, plan({2, 13, Factorization::joint, 16}));
    expect_error(ErrorCode::usage, {"kv-rank 14", "at most 12"}, plan({2, 14, Factorization::split, 16}));
    expect_error(ErrorCode::usage, {"even"}, plan({2, 5, Factorization::split, 16}));
    expect_error(ErrorCode::usage, {"at most 6"}, plan({2, 7, Factorization::key, 16}));
    expect_error(ErrorCode::usage, {"at most 8"}, plan({2, 9, Factorization::value, 16}));
    expect_error(ErrorCode::usage, {"at least 1"}, plan({2, 0, Factorization::joint, 16}));
    expect_error(ErrorCode::usage, {"rope-dim", "even"}, plan({3, 4, Factorization::joint, 16}));
}

TEST(Plan, DefaultsStayPossibleForSmallHeads) {
    ModelConfig config = tiny();
    EXPECT_EQ(default_rope_dim(config), 2);
    EXPECT_EQ(default_kv_rank(config), 4);
    config.head_dim = 80;
    EXPECT_EQ(default_rope_dim(config), 10);
    config.head_dim = 24;
    EXPECT_EQ(default_rope_dim(config), 2);
}

}  // namespace
}  // namespace mha2mla::test
