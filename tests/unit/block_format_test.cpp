// Blocks of quantised numbers against those of other programs, see tests/data/gguf/make_blocks.py.
#include "mha2mla/block_format.hpp"

#include <cmath>

#include "support/shared.hpp"

namespace mha2mla::test {
namespace {

constexpr BlockType kAll[] = {BlockType::f16,  BlockType::bf16, BlockType::q8_0, BlockType::q5_0, BlockType::q4_0,
                              BlockType::q4_k, BlockType::q4_1, BlockType::q5_1, BlockType::q5_k, BlockType::q6_k};

class BlockFormatGolden : public testing::TestWithParam<BlockType> {
protected:
    const BlockFormat& format = format_of(GetParam());
    const std::string name{format.name};
    const SafetensorsFile golden{shared("gguf/blocks.safetensors")};
};

TEST_P(BlockFormatGolden, GivesTheValuesOfTheGgufPackage) {
    const std::span<const std::byte> blocks = golden.find(name)->data;
    const std::vector<float> expected = read_floats(golden, name + ".values");
    std::vector<float> values(expected.size());
    ASSERT_EQ(static_cast<std::size_t>(format.bytes_of(static_cast<std::int64_t>(values.size()))), blocks.size());
    format.dequantize(blocks, values);
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], expected[i]) << i;
}

TEST_P(BlockFormatGolden, MakesTheSameBlocks) {
    if (format.quantize == nullptr) return;
    const std::vector<float> values = read_floats(golden, "values");
    const std::span<const std::byte> expected = golden.find(name)->data;
    std::vector<std::byte> blocks(expected.size());
    format.quantize(values, blocks);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        ASSERT_EQ(std::to_integer<int>(blocks[i]), std::to_integer<int>(expected[i]))
            << "byte " << i % static_cast<std::size_t>(format.bytes) << " of block "
            << i / static_cast<std::size_t>(format.bytes);
    }
}
INSTANTIATE_TEST_SUITE_P(Types, BlockFormatGolden, testing::ValuesIn(kAll),
                         [](const auto& info) { return std::string(format_of(info.param).name); });

TEST(BlockFormat, Bf16RoundsToNearestEvenAndKeepsNotANumber) {
    const BlockFormat& format = format_of(BlockType::bf16);
    const std::vector<float> values = {1.00390625F, 1.01171875F, INFINITY, -NAN, 3.4028235e38F};
    std::vector<std::byte> bytes(2 * values.size());
    format.quantize(values, bytes);
    std::vector<float> back(values.size());
    format.dequantize(bytes, back);
    EXPECT_EQ(back[0], 1.0F);       // a tie, to even
    EXPECT_EQ(back[1], 1.015625F);  // a tie, to even
    EXPECT_EQ(back[2], INFINITY);
    EXPECT_TRUE(std::isnan(back[3]));
    EXPECT_EQ(back[4], INFINITY);
}

TEST(BlockFormat, NumbersInAFileAreDistinct) {
    for (const BlockType type : kAll) EXPECT_EQ(find_block_format(format_of(type).id), &format_of(type));
    EXPECT_EQ(find_block_format(4), nullptr);  // a type that llama.cpp removed
}

}  // namespace
}  // namespace mha2mla::test
