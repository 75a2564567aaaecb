#include "layout/layer_rows.hpp"

#include <gtest/gtest.h>

namespace mha2mla::test {
namespace {

TEST(LayerRows, FollowTheReferenceOrder) {
    // KV head 0 keeps pairs 1 and 3 (rows 1, 3 and 5, 7), KV head 1 keeps pairs 0 and 2 (rows 8, 10 and 12, 14).
    const LayerRows rows =
        layer_rows({4, 2, 8, 0}, {{1, 3}, {0, 2}}, std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7});
    EXPECT_EQ(rows.key_rope, (std::vector<std::int64_t>{1, 3, 5, 7, 8, 10, 12, 14}));
    EXPECT_EQ(rows.key_nope, (std::vector<std::int64_t>{0, 2, 4, 6, 9, 11, 13, 15}));
    // Query heads 0 and 1 follow KV head 0, heads 2 and 3 KV head 1; all RoPE rows come before all NoPE rows.
    EXPECT_EQ(rows.query, (std::vector<std::int64_t>{1, 3, 5, 7, 9, 11, 13, 15, 16, 18, 20, 22, 24, 26, 28, 30,
                                                     0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31}));
}

TEST(LayerRows, FollowTheFamilysPairs) {
    // Pairs side by side, as interleaved heads have them: pair 1 is rows 2 and 3.
    const LayerRows rows = layer_rows({2, 1, 4, 0}, {{1}}, std::vector<std::int64_t>{0, 2, 1, 3});
    EXPECT_EQ(rows.key_rope, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(rows.key_nope, (std::vector<std::int64_t>{0, 1}));
    EXPECT_EQ(rows.query, (std::vector<std::int64_t>{2, 3, 6, 7, 0, 1, 4, 5}));
}

}  // namespace
}  // namespace mha2mla::test
