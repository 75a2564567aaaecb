// generate and eval with a KV cache, as a user meets them.
#include <gtest/gtest.h>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

const std::string kModel = example("kjv-1.8M").string();

void expect_refused(const std::vector<std::string>& arguments, const std::vector<std::string>& needles) {
    const auto result = run_program(arguments);
    EXPECT_NE(result.exit_code, 0);
    EXPECT_LT(result.exit_code, 128) << "it crashed";
    for (const auto& needle : needles) EXPECT_NE(result.err.find(needle), std::string::npos) << result.err;
}

TEST(GenerateCli, StreamsTheTextThatJsonGives) {
    const std::vector<std::string> arguments = {"generate",         kModel, "--prompt",   "And it came to pass",
                                                "--max-new-tokens", "20",   "--kv-cache", "int4-hqq"};
    const auto streamed = run_program(arguments);
    auto with_json = arguments;
    with_json.emplace_back("--json");
    const auto json = nlohmann::json::parse(run_program(with_json).out);
    EXPECT_EQ(streamed.out, json.at("text").get<std::string>() + "\n");
    EXPECT_EQ(json.at("ids").size(), json.at("prompt_ids").size() + 20);
    EXPECT_NE(streamed.err.find("int4-hqq"), std::string::npos);
    EXPECT_EQ(json.at("kv_cache").at("format"), "int4-hqq");
}

TEST(GenerateCli, BatchEqualsPromptsAlone) {
    const TemporaryDirectory directory;
    write_text(directory / "prompts", "In the beginning\nAnd the LORD spake unto Moses, saying\n");
    const auto batch = nlohmann::json::parse(
        run_program({"generate", kModel, "--prompts", directory / "prompts", "--max-new-tokens", "12", "--json"}).out);
    ASSERT_EQ(batch.at("sequences").size(), 2U);
    const auto alone = nlohmann::json::parse(
        run_program({"generate", kModel, "--prompt", "In the beginning", "--max-new-tokens", "12", "--json"}).out);
    EXPECT_EQ(batch.at("sequences")[0].at("ids"), alone.at("ids"));
}

TEST(GenerateCli, BadInputHasAClearAnswer) {
    const TemporaryDirectory directory;
    write_text(directory / "bad", "good \xFF bad");
    write_text(directory / "long", std::string(20000, 'a'));
    expect_refused({"generate", kModel}, {"--prompt TEXT", "stdin"});
    expect_refused({"generate", kModel, "--prompt-file", directory / "bad"}, {"bad", "UTF-8", "5"});
    expect_refused({"generate", kModel, "--prompt-file", directory / "long"}, {"max_position_embeddings", "shorter"});
    expect_refused({"generate", kModel, "--prompt", "a", "--kv-cache", "int3"}, {"int3", "int4-hqq"});
    expect_refused({"generate", kModel, "--prompt", "a", "--top-p", "2"}, {"top-p"});
    const auto empty = run_program({"generate", kModel, "--prompt", "", "--max-new-tokens", "3"});
    EXPECT_EQ(empty.exit_code, 0) << "an empty prompt starts from BOS";
    const auto near_end = run_program(
        {"generate", kModel, "--prompt", "a", "--max-new-tokens", "100000", "--temperature", "1", "--json"});
    EXPECT_EQ(near_end.exit_code, 0);
    EXPECT_NE(near_end.err.find("positions end"), std::string::npos);
}

TEST(EvalCli, CacheFormatsCostWhatTheyShould) {
    const auto nll = [](const std::string& format) {
        return nlohmann::json::parse(
                   run_program({"eval", kModel, "--text", example("kjv-eval.txt").string(), "--context", "256",
                                "--max-windows", "4", "--json", "--kv-cache", format, "--kv-window", "32"})
                       .out)
            .at("nll")
            .get<double>();
    };
    const double exact = nll("f32");
    const auto plain = nlohmann::json::parse(run_program({"eval", kModel, "--text", example("kjv-eval.txt").string(),
                                                          "--context", "256", "--max-windows", "4", "--json"})
                                                 .out);
    EXPECT_NEAR(plain.at("nll").get<double>(), exact, 1e-5);
    EXPECT_NEAR(nll("int8-affine"), exact, 0.001);
    EXPECT_NEAR(nll("int4-hqq"), exact, 0.02);
    EXPECT_GT(nll("int2-affine"), exact);
}

}  // namespace
}  // namespace mha2mla::test
