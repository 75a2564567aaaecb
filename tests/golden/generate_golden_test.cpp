// Greedy continuations as transformers computes them.
#include <gtest/gtest.h>

#include "mha2mla/generate.hpp"
#include "support/shared.hpp"

namespace mha2mla::test {
namespace {

std::vector<TokenId> continued(const Model& model, const std::vector<TokenId>& prompt, std::int64_t count) {
    GenerateOptions options;
    options.cache.format = KvCacheFormat::f32;
    options.max_new_tokens = count;
    options.stop = stop_tokens(model);
    Observer observer;
    return generate(model, std::span(&prompt, 1), options, observer).sequences[0].ids;
}

TEST(GenerateGolden, GreedyTextsOfTinyStories) {
    MHA2MLA_NEEDS_SHARED("golden/TinyStories-656K/greedy.json");
    const Model model = Model::open(shared("models/TinyStories-656K"));
    const auto tokenizer = Tokenizer::load(shared("models/TinyStories-656K/tokenizer.json"));
    EXPECT_EQ(stop_tokens(model), std::vector<TokenId>{2});
    const auto golden = read_json(shared("golden/TinyStories-656K/greedy.json"));
    for (const auto& item : golden.at("cases")) {
        const auto prompt = item.at("prompt_ids").get<std::vector<TokenId>>();
        EXPECT_EQ(tokenizer.encode(item.at("prompt").get<std::string>(), true), prompt);
        EXPECT_EQ(continued(model, prompt, 64), item.at("ids").get<std::vector<TokenId>>()) << item.at("prompt");
    }
}

TEST(GenerateGolden, GreedyIdsOfKjv) {
    MHA2MLA_NEEDS_SHARED("golden/kjv-1.8M/expected.json");
    const Model model = Model::open(example("kjv-1.8M"));
    // The recorded run took BOS, which is also the padding token there, for padding once there was a second token, and
    // masked it. What follows is the continuation of the second token alone.
    auto expected =
        read_json(shared("golden/kjv-1.8M/expected.json")).at("greedy_ids_from_bos").get<std::vector<TokenId>>();
    EXPECT_EQ(continued(model, {expected[0]}, 1)[1], expected[1]);
    expected.erase(expected.begin());
    EXPECT_EQ(continued(model, {expected[0]}, static_cast<std::int64_t>(expected.size()) - 1), expected);
}

}  // namespace
}  // namespace mha2mla::test
