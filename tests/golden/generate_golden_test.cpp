// Greedy continuations compared with those of transformers.
#include <gtest/gtest.h>

#include <cmath>

#include "mha2mla/generate.hpp"
#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

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
    // In the recorded run BOS is also the padding token and was masked as padding after the second token. So the
    // recorded continuation is that of the second token alone.
    auto expected =
        read_json(shared("golden/kjv-1.8M/expected.json")).at("greedy_ids_from_bos").get<std::vector<TokenId>>();
    EXPECT_EQ(continued(model, {expected[0]}, 1)[1], expected[1]);
    expected.erase(expected.begin());
    EXPECT_EQ(continued(model, {expected[0]}, static_cast<std::int64_t>(expected.size()) - 1), expected);
}

/// The NLL of a converted model with a cache format minus that with a 16-bit cache, on its evaluation text.
void expect_small_losses(const std::string& model, const std::string& calibration, const std::string& text) {
    const TemporaryDirectory directory;
    const std::string converted = directory / "mla";
    const auto conversion = run_program({"convert", model, converted, "--quality", "none", "--calibration-text",
                                         calibration, "--samples", "32", "--seq-len", "512"});
    ASSERT_EQ(conversion.exit_code, 0) << conversion.err;
    const auto nll = [&](const std::string& format) {
        const auto result = run_program({"eval", converted, "--text", text, "--context", "512", "--max-windows", "8",
                                         "--kv-cache", format, "--json"});
        EXPECT_EQ(result.exit_code, 0) << result.err;
        return nlohmann::json::parse(result.out).at("nll").get<double>();
    };
    const double exact = nll("bf16");
    EXPECT_NEAR(nll("f32"), exact, 0.001);
    EXPECT_LT(std::abs(nll("int8-affine") - exact), 0.001);
    EXPECT_LT(std::abs(nll("int8-hqq") - exact), 0.001);
    EXPECT_LT(nll("int4-hqq") - exact, 0.02);
    EXPECT_LT(nll("int4-affine") - exact, 0.02);
    EXPECT_GT(nll("int2-affine") - exact, 0.001) << "nothing was quantised";
}

TEST(CacheLosses, OfConvertedKjv) {
    expect_small_losses(example("kjv-1.8M"), example("kjv-calibration.txt"), example("kjv-eval.txt"));
}

TEST(CacheLosses, OfConvertedTinyStories) {
    MHA2MLA_NEEDS_SHARED("models/TinyStories-656K");
    expect_small_losses(shared("models/TinyStories-656K"), shared("data/tinystories-calibration.txt"),
                        shared("data/tinystories-eval.txt"));
}

}  // namespace
}  // namespace mha2mla::test
