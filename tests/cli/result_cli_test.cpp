// The interface for scripts: only JSON results on stdout, and exit codes.
#include <cmath>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

const std::string kModel = example("kjv-1.8M").string();
const std::string kText = example("kjv-eval.txt").string();
const std::string kCalibration = example("kjv-calibration.txt").string();

nlohmann::json run_json(std::vector<std::string> arguments) {
    arguments.emplace_back("--json");
    const auto result = run_program(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out);
}

TEST(ResultCli, EvalPrintsTheNllThatTransformersComputes) {
    const auto json = run_json({"eval", kModel, "--text", kText, "--context", "256", "--max-windows", "24"});
    EXPECT_NEAR(json.at("nll").get<double>(), 2.4174966867239025, 1e-4);  // transformers 4.44, float32
    EXPECT_NEAR(json.at("perplexity").get<double>(), std::exp(json.at("nll").get<double>()), 1e-9);
    EXPECT_EQ(json.at("tokens"), 24 * 255);
}

TEST(ResultCli, PlanHasItsKeys) {
    const auto json = run_json({"plan", kModel + "/config.json", "--kv-bits", "4"});
    EXPECT_GT(json.at("parameters").at("original"), json.at("parameters").at("converted"));
    EXPECT_EQ(json.at("kv_cache").at("original_bytes_per_token"), 4 * 2 * 3 * 32 * 2);
    EXPECT_EQ(json.at("kv_cache").at("converted_bytes_per_token"), 4 * 3 * (4 + 16) / 2);
    EXPECT_NEAR(json.at("kv_cache").at("reduction").get<double>(), 1 - 120.0 / 1536, 1e-12);
}

TEST(ResultCli, InspectCountsEveryTensor) {
    const auto json = run_json({"inspect", kModel});
    EXPECT_EQ(json.at("attention"), "GQA");
    EXPECT_EQ(json.at("tensors").size(), 38U);
    EXPECT_EQ(json.at("bytes"), std::filesystem::file_size(kModel + "/model.safetensors") - 8 - 4400);
}

TEST(ResultCli, CalibrateConvertAndVerifyAgree) {
    const TemporaryDirectory directory;
    const std::string stats = (directory.path() / "stats.safetensors").string();
    const std::string ranks = (directory.path() / "ranks.pth").string();
    const std::string out = (directory.path() / "mla").string();
    const auto calibrated = run_json({"calibrate", kModel, "--text", kCalibration, "--samples", "8", "--seq-len", "128",
                                      "--output", stats, "--rank-file", ranks});
    EXPECT_EQ(calibrated.at("tokens"), 8 * 128);
    const auto converted = run_json({"convert", kModel, out, "--stats", stats});
    EXPECT_NEAR(converted.at("kv_cache").at("reduction").get<double>(), 0.6875, 1e-12);
    EXPECT_EQ(run_json({"inspect", out}).at("converted"), true);
    const auto verified = run_json({"verify", kModel, out, "--text", kText, "--context", "128", "--max-windows", "8"});
    const auto evaluated = run_json({"eval", out, "--text", kText, "--context", "128", "--max-windows", "8"});
    EXPECT_NEAR(verified.at("nll_converted").get<double>(), evaluated.at("nll").get<double>(), 1e-9);
    EXPECT_GT(verified.at("mean_kl").get<double>(), 0.01);
    EXPECT_GT(verified.at("max_logit_difference").get<double>(), 0.0);
    EXPECT_LT(verified.at("nll_original").get<double>(), verified.at("nll_converted").get<double>());

    const auto missed = run_program(
        {"verify", kModel, out, "--text", kText, "--context", "128", "--max-windows", "2", "--max-kl", "0.001"});
    EXPECT_EQ(missed.exit_code, 3);
    EXPECT_NE(missed.err.find("--max-kl"), std::string::npos);
    const auto met = run_program(
        {"verify", kModel, out, "--text", kText, "--context", "128", "--max-windows", "2", "--max-kl", "50"});
    EXPECT_EQ(met.exit_code, 0);

    // The rank file holds the same choice, and so does text given to convert itself.
    for (const auto& source : std::vector<std::vector<std::string>>{
             {"--rank-file", ranks},
             {"--method", "mha2mla", "--calibration-text", kCalibration, "--samples", "8", "--seq-len", "128"}}) {
        const std::string again = (directory.path() / "again").string();
        std::vector<std::string> arguments = {"convert", kModel, again, "--overwrite"};
        arguments.insert(arguments.end(), source.begin(), source.end());
        ASSERT_EQ(run_program(arguments).exit_code, 0);
        EXPECT_EQ(read_text(again + "/model.safetensors"), read_text(out + "/model.safetensors"));
    }
}

TEST(ResultCli, AutoStopsWhenTheSelectionIsStable) {
    const TemporaryDirectory directory;
    const auto stats = [&](const char* name) { return (directory.path() / name).string(); };
    const std::vector<std::string> common = {"calibrate", kModel, "--text", kCalibration, "--seq-len", "256"};
    const auto run = [&](std::vector<std::string> more) {
        more.insert(more.begin(), common.begin(), common.end());
        return run_json(more);
    };
    const auto found = run({"--samples", "auto", "--rope-dim", "2", "--output", stats("auto")});
    const auto sequences = found.at("sequences").get<std::int64_t>();
    EXPECT_EQ(found.at("rope_dim"), 2);
    EXPECT_EQ(found.at("settled"), found.at("unsettled_layers") == 0);
    EXPECT_GE(sequences, 36);
    run({"--samples", std::to_string(sequences), "--output", stats("fixed")});
    const auto data = [](const std::string& file) {  // after the header, whose metadata differ
        const std::string bytes = read_text(file);
        return bytes.substr(bytes.size() - 4 * (6 + 3) * 16 * 8);
    };
    EXPECT_EQ(data(stats("auto")), data(stats("fixed")));

    const std::string few = read_text(kText).substr(0, 20000);
    write_text(directory / "few.txt", few);
    const auto short_of = run_program({"calibrate", kModel, "--text", (directory / "few.txt").string(), "--seq-len",
                                       "256", "--samples", "auto", "--output", stats("few")});
    EXPECT_EQ(short_of.exit_code, 0);
    EXPECT_NE(short_of.err.find("4 of 4 layers had not settled"), std::string::npos) << short_of.err;
}

TEST(ResultCli, TokenFilesReplaceText) {
    const TemporaryDirectory directory;
    const std::string ids = "{\"input_ids\": [5, 6, 7, 8, 9, 10, 11]}\n{\"input_ids\": [12]}\n";
    write_text(directory.path() / "a.jsonl", ids);
    std::string raw;
    for (char id = 5; id <= 12; ++id) raw += std::string{id, '\0'};
    write_text(directory.path() / "a.u16", raw);
    const std::string head = "{'descr': '<u2', 'fortran_order': False, 'shape': (8,), }";
    std::string npy = "\x93NUMPY";
    npy += std::string{1, 0, static_cast<char>(head.size()), 0} + head + raw;
    write_text(directory.path() / "a.npy", npy);
    const auto nll = [&](const char* name) {
        return run_json({"eval", kModel, "--tokens", (directory.path() / name).string(), "--context", "5"}).at("nll");
    };
    EXPECT_EQ(nll("a.jsonl"), nll("a.u16"));
    EXPECT_EQ(nll("a.npy"), nll("a.u16"));
}

}  // namespace
}  // namespace mha2mla::test
