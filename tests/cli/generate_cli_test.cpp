// The commands generate and eval with a KV cache.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

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

TEST(GenerateCli, ACacheThatMemoryCannotHoldIsRefusedBeforeItIsTried) {
    const TemporaryDirectory directory;
    std::filesystem::copy(kModel, directory / "model");
    auto config = read_json(directory / "model/config.json");
    config["max_position_embeddings"] = 1 << 24;
    write_text(directory / "model/config.json", config.dump());
    write_text(directory / "prompts", std::string(4000, '\n'));
    const auto result = run_program({"generate", directory / "model", "--prompts", directory / "prompts",
                                     "--max-new-tokens", "16000000", "--kv-cache", "f32"});
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(result.out, "");
    for (const char* needle : {"16000000 tokens", "4000 sequences", "GB", "available", "shorter prompt"}) {
        EXPECT_NE(result.err.find(needle), std::string::npos) << result.err;
    }
}

TEST(GenerateCli, NoNewTokensReadThePromptOnly) {
    const auto result = run_program({"generate", kModel, "--prompt", "In the beginning", "--max-new-tokens", "0"});
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_EQ(result.out, "In the beginning\n");
    const auto json = nlohmann::json::parse(
        run_program({"generate", kModel, "--prompt", "In the beginning", "--max-new-tokens", "0", "--json"}).out);
    EXPECT_EQ(json.at("ids"), json.at("prompt_ids"));
    EXPECT_EQ(json.at("decode").at("tokens"), 0);
}

TEST(GenerateCli, PromptsThatCannotBeRead) {
    const TemporaryDirectory directory;
    write_text(directory / "one bad line", "good\nbad \xFF line\ngood\n");
    write_text(directory / "empty", "");
    const auto refused = [&](const std::vector<std::string>& arguments, int exit_code,
                             const std::vector<std::string>& needles) {
        const auto result = run_program(arguments);
        EXPECT_EQ(result.exit_code, exit_code) << result.err;
        EXPECT_EQ(result.out, "") << "nothing before it is clear that it will go on";
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
        for (const auto& needle : needles) EXPECT_NE(result.err.find(needle), std::string::npos) << result.err;
    };
    refused({"generate", kModel, "--prompts", directory / "one bad line"}, 1, {"line 2", "UTF-8", "offset 4"});
    refused({"generate", kModel, "--prompts", directory / "empty"}, 1, {"empty", "no prompts", "one per line"});
    refused({"generate", kModel, "--prompts", directory / "none"}, 1, {"none", "No such file"});
    refused({"generate", kModel, "--prompt", "a", "--temperature", "-1"}, 2, {"temperature must be 0"});
    const auto from_bos =
        run_program({"generate", kModel, "--prompt-file", directory / "empty", "--max-new-tokens", "3", "--json"});
    EXPECT_EQ(nlohmann::json::parse(from_bos.out).at("prompt_ids").size(), 1U);
    const auto token_file = directory / "no_tokens.u16";
    write_text(token_file, "");
    const auto no_tokens =
        run_program({"generate", kModel, "--prompt-tokens", token_file, "--max-new-tokens", "3", "--json"});
    EXPECT_EQ(no_tokens.exit_code, 0) << no_tokens.err;
}

TEST(GenerateCli, AClosedPipeEndsItWithOneLine) {
    const TemporaryDirectory directory;
    const std::string log = (directory / "log").string();
    const std::string line = "{ { '" MHA2MLA_PROGRAM "' generate '" + kModel +
                             "' --prompt a --temperature 1 --ignore-eos --max-new-tokens 400 2>'" + log +
                             "'; echo $? >>'" + log + "'; } | true; }";
    ASSERT_EQ(std::system(line.c_str()), 0);
    const auto read = [&] {
        std::ifstream in(log);
        return std::string(std::istreambuf_iterator<char>(in), {});
    };
    EXPECT_EQ(read(), "error: cannot write the result to standard output; was the pipe closed?\n1\n");
}

TEST(EvalCli, AContextBeyondThePositionsIsSaid) {
    const auto result = run_program({"eval", kModel, "--text", example("kjv-eval.txt").string(), "--context", "600",
                                     "--max-windows", "1", "--kv-cache", "bf16"});
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_NE(result.err.find("--context 600 is longer than the model's 512 positions"), std::string::npos)
        << result.err;
}

TEST(EvalCli, ChoicesThatCannotBeScored) {
    const TemporaryDirectory directory;
    const auto refused = [&](const std::string& lines, const std::vector<std::string>& needles,
                             const std::string& task = "items") {
        write_text(directory / "choices.jsonl", lines);
        const auto result = run_program({"eval", kModel, "--choices", directory / "choices.jsonl", "--task", task});
        EXPECT_EQ(result.exit_code, 1) << result.err;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
        EXPECT_NE(result.err.find("choices.jsonl"), std::string::npos) << result.err;
        for (const auto& needle : needles) EXPECT_NE(result.err.find(needle), std::string::npos) << result.err;
    };
    const std::string good = R"({"query":"And God","choices":[" said"," let"],"gold":0})";
    refused("", {"no questions"});
    refused("\n\n", {"no questions"});
    refused(good + "\n{\"query\":\n", {"line 2", "not a JSON object", "query, choices, gold"});
    refused("[1]", {"line 1", "not a JSON object"});
    refused("{\"query\":\"\xFF\"}", {"line 1", "UTF-8"});
    refused(R"({"query":"a","choices":[" b"]})", {"line 1", "'gold' not found"});
    refused(R"({"query":"a","choices":" b","gold":0})", {"line 1", "must be array"});
    refused(R"({"query":"a","choices":[],"gold":0})", {"line 1", "no choices"});
    refused(R"({"query":"a","choices":[" b"," c"],"gold":2})", {"line 1", "not among the 2"});
    refused(R"({"query":"a","choices":[" b"," c"],"gold":-1})", {"line 1", "not among the 2"});
    refused(R"({"query":"a","choices":[" b"," c"],"gold":0.5})", {"line 1", "0.5", "whole number"});
    refused(R"({"query":"a","choices":[" b"," c"],"gold":"1x"})", {"line 1", "1x", "whole number"});
    refused(R"({"goal":"a","sol1":"b","sol2":"c","label":""})", {"line 1", "whole number"}, "piqa");
    refused(good + R"(
{"query":"a","choices":[" b",""],"gold":0})",
            {"question 2", "choice 2", "no tokens of its own"});
}

TEST(EvalCli, CacheFormatsCostWhatTheyShould) {
    const auto nll = [](const std::string& format, const std::vector<std::string>& window = {"--kv-window", "32"}) {
        std::vector<std::string> arguments = {
            "eval",      kModel,       "--text",        example("kjv-eval.txt").string(),
            "--context", "256",        "--max-windows", "4",
            "--json",    "--kv-cache", format};
        arguments.insert(arguments.end(), window.begin(), window.end());
        return nlohmann::json::parse(run_program(arguments).out).at("nll").get<double>();
    };
    const double exact = nll("f32", {});
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
