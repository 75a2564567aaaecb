// The method that a command line selects, the source of the statistics, and options that must not be ignored.
#include <algorithm>

#include "mha2mla/checkpoint.hpp"
#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;
const std::string kModel = example("kjv-1.8M").string();
const std::string kText = example("kjv-calibration.txt").string();

using Arguments = std::vector<std::string>;

class MethodCli : public testing::Test {
protected:
    [[nodiscard]] std::string path(const std::string& name) const { return (directory_ / name).string(); }
    /// convert with little text.
    ProgramResult convert(const std::string& name, Arguments more, bool text = true) {
        Arguments arguments = {"convert", kModel, path(name), "--json"};
        if (text) more.insert(more.end(), {"--calibration-text", kText, "--samples", "8", "--seq-len", "128"});
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments);
    }
    nlohmann::json converted(const std::string& name, const Arguments& more, bool text = true) {
        const auto result = convert(name, more, text);
        EXPECT_EQ(result.exit_code, 0) << result.err;
        return result.exit_code == 0 ? nlohmann::json::parse(result.out) : nlohmann::json();
    }
    [[nodiscard]] std::string weights(const std::string& name) const {
        return read_text(directory_ / name / "model.safetensors");
    }
    void expect_refused(const Arguments& more, const std::vector<std::string>& words, bool text = true) {
        const auto result = convert("refused", more, text);
        EXPECT_EQ(result.exit_code, 2) << result.err;
        for (const auto& word : words)
            EXPECT_NE(result.err.find(word), std::string::npos) << word << " in " << result.err;
        EXPECT_FALSE(fs::exists(directory_ / "refused"));
    }
    TemporaryDirectory directory_;
};

/// Only aligning changes o_proj.
bool is_aligned(const fs::path& output) {
    const Checkpoint source = Checkpoint::open(kModel), made = Checkpoint::open(output);
    const std::string name = "model.layers.1.self_attn.o_proj.weight";
    return !std::ranges::equal(source.find(name)->data, made.find(name)->data);
}

TEST_F(MethodCli, StagesAreTheSameFromTextFromAFileAndInABatch) {
    const Arguments stages = {"--rope", "attention", "--svd", "weighted", "--nope-phase", "fitted", "--rope-dim", "8"};
    const auto json = converted("text", stages);
    EXPECT_EQ(json.at("aligned"), false);
    EXPECT_EQ(json.at("kv_balance").size(), 4U);
    EXPECT_FALSE(is_aligned(directory_ / "text"));
    Arguments again = stages;
    again.emplace_back("--resume");
    const auto found = converted("text", again);
    EXPECT_EQ(found.at("already_finished"), true);
    EXPECT_EQ(found.at("kv_balance"), json.at("kv_balance"));

    ASSERT_EQ(run_program({"calibrate", kModel, "--text", kText, "--samples", "8", "--seq-len", "128", "--moments",
                           "--attention-order", "-o", path("stats.safetensors")})
                  .exit_code,
              0);
    Arguments from_file = stages;
    from_file.insert(from_file.end(), {"--stats", path("stats.safetensors")});
    (void)converted("file", from_file, false);
    EXPECT_EQ(weights("file"), weights("text"));

    write_text(directory_ / "recipe.json", R"({"defaults": {"source": ")" + kModel + R"(", "calibration-text": ")" +
                                               kText + R"(", "samples": 8, "seq-len": 128, "rope-dim": 8},
        "output": "batch", "jobs": [{"rope": "2-norm", "svd": "joint", "destination": "batch/a"},
                                    {"rope": "attention", "svd": "weighted", "nope-phase": "fitted", "destination": "batch/b"}]})");
    const auto batch = run_program({"batch", path("recipe.json")});
    ASSERT_EQ(batch.exit_code, 0) << batch.err;
    EXPECT_EQ(weights("batch/b"), weights("text"));
    const auto statistics = fs::directory_iterator(directory_ / "batch/statistics");
    EXPECT_EQ(std::count_if(begin(statistics), end(statistics),
                            [](const auto& entry) { return entry.path().extension() == ".safetensors"; }),
              1)
        << "both jobs share what both need";

    const auto config = read_json(directory_ / "text/config.json").at("mha2mla");
    EXPECT_EQ(config.at("svd_init_method"), "joint") << "to the reference";
    EXPECT_EQ(config.at("factorization"), "weighted");
    EXPECT_EQ(config.at("rope_selection"), "attention");
    EXPECT_EQ(config.at("qk_tensor_path"), "rope_rank.pth");
    const std::string card = read_text(directory_ / "text/README.md");
    EXPECT_NE(card.find("selection `attention`"), std::string::npos);
    EXPECT_NE(card.find("factorisation `weighted`"), std::string::npos);
}

TEST_F(MethodCli, StatisticsThatLackSomethingSayHowToGetIt) {
    ASSERT_EQ(run_program({"calibrate", kModel, "--text", kText, "--samples", "2", "--seq-len", "64", "-o",
                           path("norms"), "--rank-file", path("ranks")})
                  .exit_code,
              0);
    expect_refused({"--rope", "attention", "--stats", path("norms")}, {"norms", "--attention-order"}, false);
    expect_refused({"--svd", "whitened", "--stats", path("norms")}, {"norms", "--svd whitened", "--moments"}, false);
    expect_refused({"--nope-phase", "fitted", "--stats", path("norms")}, {"--nope-phase fitted", "--moments"}, false);
    expect_refused({"--rope", "attention", "--rank-file", path("ranks")}, {"--rank-file", "--calibration-text"}, false);
    expect_refused({"--svd", "whitened", "--rank-file", path("ranks")}, {"--rank-file", "--moments"}, false);
}

TEST_F(MethodCli, ShardsOfACalibrationAreMergedAndConvert) {
    const auto calibrate = [&](const Arguments& more) {
        Arguments arguments = {"calibrate", kModel,      "--text", kText,      "--samples",
                               "10",        "--seq-len", "512",    "--moments"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments);
    };
    ASSERT_EQ(calibrate({"-o", path("whole"), "--rank-file", path("whole.pth")}).exit_code, 0);
    for (const std::string shard : {"1", "2"}) {
        const auto result =
            calibrate({"--attention-order", "--shard", shard + "/2", "-o", path("part-" + shard), "--json"});
        ASSERT_EQ(result.exit_code, 0) << result.err;
        const auto json = nlohmann::json::parse(result.out);
        EXPECT_EQ(json.at("sequences"), 5);
        EXPECT_EQ(json.at("shard"), shard + "/2");
        EXPECT_EQ(json.at("attention_order"), shard == "1");
    }
    const auto merge = [&](const Arguments& more) {
        Arguments arguments = {"calibrate", "merge"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments);
    };
    const auto merged =
        merge({path("part-2"), path("part-1"), "-o", path("merged"), "--rank-file", path("merged.pth"), "--json"});
    ASSERT_EQ(merged.exit_code, 0) << merged.err;
    EXPECT_EQ(nlohmann::json::parse(merged.out).at("tokens"), 5120);
    EXPECT_EQ(read_text(directory_ / "merged.pth"), read_text(directory_ / "whole.pth"));
    (void)converted("out", {"--rope", "attention", "--svd", "whitened", "--stats", path("merged")}, false);

    expect_refused({"--rope", "2-norm", "--stats", path("part-1")}, {"part-1", "shard 1/2", "calibrate merge"}, false);
    EXPECT_NE(merge({path("part-1"), "-o", path("other")}).err.find("missing: 2/2"), std::string::npos);
    EXPECT_EQ(merge({path("part-1"), path("part-2"), "-o", path("part-2"), "--overwrite"}).exit_code, 2) << "an input";
    EXPECT_EQ(calibrate({"--shard", "3/2", "-o", path("other")}).exit_code, 2);
    EXPECT_EQ(calibrate({"--shard", "1/2", "-o", path("other"), "--rank-file", path("ranks")}).exit_code, 2);
    EXPECT_FALSE(fs::exists(directory_ / "other"));
}

TEST_F(MethodCli, TwoWordsAreACommandOnlyInItsPlace) {
    const std::string help = run_program({"calibrate", "merge", "--help"}).out;
    EXPECT_NE(help.find("Usage: mha2mla calibrate merge"), std::string::npos) << help;
    EXPECT_EQ(run_program({"help", "calibrate", "merge"}).out, help);
    EXPECT_EQ(run_program({"--log-file", path("calibrate"), "calibrate", "merge", "--help"}).out, help);
    EXPECT_NE(run_program({"convert", "calibrate", "merge", "--rope", "high"}).err.find("calibrate"),
              std::string::npos);
    EXPECT_NE(run_program({"inspect", "calibrate"}).err.find("calibrate"), std::string::npos);
}

TEST_F(MethodCli, WhatIsNamedIsNeverRefined) {
    const auto paper = converted("paper", {"--method", "mha2mla"});
    EXPECT_EQ(paper.at("rope_dim"), 4);
    EXPECT_EQ(paper.at("kv_rank"), 16);
    for (const Arguments& named : {Arguments{"--rope", "2-norm", "--svd", "joint"}, Arguments{"--rope", "2-norm"},
                                   Arguments{"--svd", "joint"}}) {
        const auto json = converted("named", named);
        EXPECT_EQ(json.at("aligned"), false);
        EXPECT_EQ(weights("named"), weights("paper"));
        fs::remove_all(directory_ / "named");
    }
    EXPECT_FALSE(is_aligned(directory_ / "paper"));
    EXPECT_EQ(converted("half", {"--method", "mha2mla", "--kv-reduction", "0.5"}).at("kv_rank"), 28);
}

/// The weights are those of the paper's method, and not those of the default one.
TEST_F(MethodCli, ADefaultValueThatIsGivenNamesItsStage) {
    (void)converted("paper", {"--method", "mha2mla"});
    for (const Arguments& named :
         {Arguments{"--sigma", "balanced"}, Arguments{"--svd-method", "standard"}, Arguments{"--nope-phase", "zero"}}) {
        const auto json = converted("named", named);
        EXPECT_EQ(json.at("aligned"), false) << named[0];
        EXPECT_EQ(weights("named"), weights("paper")) << named[0];
        fs::remove_all(directory_ / "named");
    }
    const auto uniform = converted("uniform", {"--rope", "uniform", "--uniform-start", "0", "--dry-run"}, false);
    EXPECT_EQ(uniform.at("aligned"), false);
}

TEST_F(MethodCli, TransmlaSaysWhatItIsAndRefinesNothing) {
    const auto json = converted("transmla", {"--method", "transmla", "--kv-reduction", "0.6875"});
    EXPECT_EQ(json.at("method"), "transmla");
    EXPECT_EQ(json.at("layout"), "deepseek");
    EXPECT_EQ(json.at("rope_dim"), 16) << "half of head_dim";
    EXPECT_EQ(json.at("rope_dim").get<int>() + json.at("kv_rank").get<int>(), 60);
    EXPECT_EQ(json.at("aligned"), false);
    EXPECT_NE(read_text(directory_ / "transmla/README.md").find("method `transmla`"), std::string::npos);
    EXPECT_EQ(converted("quarter", {"--method", "transmla", "--rope-dim", "8", "--kv-rank", "52"}).at("rope_dim"), 8);

    const auto exact = converted("exact", {"--method", "transmla-v1"});
    EXPECT_EQ(exact.at("kv_cache").at("reduction"), 0.0);
    for (const auto& error : exact.at("alignment_error")) EXPECT_LT(error.get<double>(), 1e-5);
    expect_refused({"--method", "transmla-v1", "--kv-reduction", "0.5"}, {"transmla-v1", "--kv-reduction"});
    expect_refused({"--method", "transmla", "--rope-dim", "10"}, {"--rope-dim", "head_dim of 32"});
    expect_refused({"--method", "transmla", "--kv-reduction", "0.99"}, {"transmla", "--rope-dim"});
    expect_refused({"--method", "transmla", "--layout", "mha2mla"}, {"--layout", "--method aligned"});
    expect_refused({"--method", "transmla", "--quality", "best"}, {"--quality", "--method aligned"});
    expect_refused({"--method", "transmla", "--rope", "high"}, {"--rope", "--method transmla"});
}

TEST_F(MethodCli, OptionsWithoutEffectNameTheOneTheyNeed) {
    expect_refused({"--rope-frequencies", "free", "--method", "mha2mla"}, {"--rope-frequencies", "--layout deepseek"});
    expect_refused({"--rope-frequencies", "free", "--layout", "mha2mla"}, {"--rope-frequencies", "--layout deepseek"});

    expect_refused({"--svd-excess", "0.1"}, {"--svd-excess", "--svd-method fast"});
    expect_refused({"--svd-excess", "0.001", "--svd-method", "strict"}, {"--svd-excess", "--svd-method fast"});
    expect_refused({"--svd", "none", "--sigma", "balanced"}, {"--sigma", "--svd other than none"});
    expect_refused({"--svd", "none", "--svd-method", "strict"}, {"--svd-method", "--svd other than none"});
    expect_refused({"--svd", "none", "--kv-rank", "8"}, {"--kv-rank", "--svd other than none"});
    expect_refused({"--uniform-start", "0"}, {"--uniform-start", "--rope uniform"});
    expect_refused({"--kv-balance", "auto"}, {"--kv-balance", "--svd whitened"});
    expect_refused({"--eval-context", "64"}, {"--eval-context", "--eval-text"});
    expect_refused({"--eval-max-windows", "4"}, {"--eval-max-windows", "--eval-tokens"});
    expect_refused({"--rope", "uniform", "--samples", "8"}, {"--samples", "--calibration-text"}, false);
    expect_refused({"--rope", "uniform", "--seq-len", "8"}, {"--seq-len", "--calibration-text"}, false);

    const auto refused = [](const Arguments& arguments, const std::vector<std::string>& words) {
        const auto result = run_program(arguments);
        EXPECT_EQ(result.exit_code, 2) << result.err;
        for (const auto& word : words) EXPECT_NE(result.err.find(word), std::string::npos) << result.err;
        EXPECT_EQ(result.out, "");
    };
    for (const char* option : {"--kv-group", "--kv-window"}) {
        refused({"eval", kModel, "--text", kText, option, "64"}, {option, "quantised --kv-cache"});
        refused({"eval", kModel, "--text", kText, "--kv-cache", "bf16", option, "64"},
                {option, "quantised --kv-cache"});
        refused({"generate", kModel, "--prompt", "a", option, "64"}, {option, "quantised --kv-cache"});
    }
    for (const char* option : {"--context", "--max-windows"}) {
        refused({"eval", kModel, "--choices", kText, option, "64"}, {option, "--text"});
    }
    for (const char* option : {"--top-k", "--top-p", "--seed"}) {
        refused({"generate", kModel, "--prompt", "a", option, "1"}, {option, "--temperature"});
    }
    refused({"eval", kModel, "--text", kText, "--kv-cache", "int4-hqx"}, {"--kv-cache", "did you mean 'int4-hqq'"});
    refused({"eval", kModel, "--choices", kText, "--task", "hellaswga"}, {"--task", "did you mean 'hellaswag'"});
}

TEST_F(MethodCli, APlanShowsWhatConvertWouldChooseFrom) {
    const auto plan = [](Arguments more) {
        more.insert(more.begin(), {"plan", kModel, "--json"});
        const auto result = run_program(more);
        EXPECT_EQ(result.exit_code, 0) << result.err;
        return nlohmann::json::parse(result.out);
    };
    const auto open = plan({"--kv-reduction", "0.5"});
    const auto would = converted("dry", {"--kv-reduction", "0.5", "--dry-run"});
    const auto own = plan({"--kv-reduction", "0.5", "--layout", "deepseek"});
    ASSERT_GT(own.at("splits").size(), 1U);
    ASSERT_EQ(own.at("splits").size(), would.at("splits").size());
    const auto other = plan({"--kv-reduction", "0.5", "--layout", "mha2mla"});
    ASSERT_EQ(open.at("splits").size(), own.at("splits").size() + other.at("splits").size());
    for (const auto& split : own.at("splits")) {
        EXPECT_EQ(split.at("layout"), "deepseek");
        EXPECT_EQ(split.at("kv_cache").at("converted_bytes_per_token").get<double>(),
                  2 * 4 * (split.at("rope_dim").get<int>() + split.at("kv_rank").get<int>()))
            << "4 layers at 16 bit";
    }
    for (std::size_t i = 0; i < open.at("splits").size(); ++i) {
        EXPECT_GE(open.at("splits")[i].at("kv_cache").at("reduction").get<double>(), 0.5);
    }
    for (std::size_t i = 0; i < own.at("splits").size(); ++i) {
        EXPECT_EQ(open.at("splits")[i].at("rope_dim"), would.at("splits")[i].at("rope_dim"));
        EXPECT_EQ(open.at("splits")[i].at("kv_rank"), would.at("splits")[i].at("kv_rank"));
        EXPECT_GE(open.at("splits")[i].at("kv_cache").at("reduction").get<double>(), 0.5);
    }
    for (const Arguments& named : {Arguments{"--method", "mha2mla"}, Arguments{"--svd", "joint"}}) {
        Arguments asked = named;
        asked.insert(asked.end(), {"--kv-reduction", "0.5"});
        const auto paper = plan(asked);
        EXPECT_EQ(paper.at("rope_dim"), 4);
        EXPECT_EQ(paper.at("kv_rank"), 28);
    }
    EXPECT_EQ(plan({}).at("kv_rank"), 16) << "without a budget the paper's";
    const auto refused = run_program({"plan", kModel, "--kv-reduction", "0.5", "--rope-dim", "8", "--kv-rank", "8"});
    EXPECT_EQ(refused.exit_code, 2) << refused.err;
}

TEST_F(MethodCli, TheDefaultAlignsWithinItsBudget) {
    const auto plan = converted("aligned", {"--dry-run"});
    EXPECT_TRUE(plan.at("rope_dim").is_null());
    EXPECT_GT(plan.at("splits").size(), 1U);
    EXPECT_FALSE(fs::exists(directory_ / "aligned"));
    const auto made = converted("aligned", {});
    EXPECT_EQ(made.at("aligned"), true);
    EXPECT_GE(made.at("kv_cache").at("reduction").get<double>(), 0.6875);
    EXPECT_EQ(made.at("kv_cache"), plan.at("kv_cache"));
    EXPECT_LE(made.at("output_bytes").get<double>(), 1.01 * plan.at("output_bytes").get<double>() + 10'000);
    EXPECT_TRUE(is_aligned(directory_ / "aligned"));
    const auto record = read_json(directory_ / "aligned/mha2mla.json");
    EXPECT_EQ(record.at("method").at("aligned"), true);
    EXPECT_EQ(record.at("method").at("rope_dim"), made.at("rope_dim"));
    EXPECT_NE(read_text(directory_ / "aligned/README.md").find("aligned with the original"), std::string::npos);

    // The same again is found done; another budget is refused.
    EXPECT_EQ(converted("aligned", {"--resume"}).at("already_finished"), true);
    EXPECT_EQ(convert("aligned", {"--resume", "--kv-reduction", "0.5"}).exit_code, 1);
}

TEST_F(MethodCli, AlignedJobsRunInABatchOnceEach) {
    write_text(directory_ / "recipe.json", R"({"defaults": {"source": ")" + kModel + R"(", "calibration-text": ")" +
                                               kText + R"(", "samples": 8, "seq-len": 128, "quality": "none"},
        "output": "out", "jobs": [{"grid": {"kv-reduction": [0.5, 0.75]}}]})");
    const auto plan = run_program({"batch", path("recipe.json"), "--dry-run", "--json"});
    ASSERT_EQ(plan.exit_code, 0) << plan.err;
    const auto planned = nlohmann::json::parse(plan.out);
    for (const auto& job : planned.at("jobs")) {
        EXPECT_EQ(job.at("state"), "convert");
        EXPECT_GT(job.at("memory"), 10'000'000);
        EXPECT_GT(job.at("output_bytes"), 1'000'000);
    }
    const auto first = run_program({"batch", path("recipe.json"), "--json"});
    ASSERT_EQ(first.exit_code, 0) << first.err;
    EXPECT_EQ(nlohmann::json::parse(first.out).at("done"), 2);
    (void)converted("direct", {"--kv-reduction", "0.5", "--quality", "none"});
    EXPECT_EQ(weights("direct"), weights("out/kjv-1.8M-mla-kv-reduction-0.5"));
    const auto again = run_program({"batch", path("recipe.json"), "--json"});
    EXPECT_EQ(nlohmann::json::parse(again.out).at("skipped"), 2);
}

TEST_F(MethodCli, CombinationsThatMeanNothingNameTheWayOut) {
    expect_refused({"--method", "aligned", "--rope", "2-norm"}, {"--rope", "--method mha2mla"});
    expect_refused({"--method", "aligned", "--svd", "split"}, {"--svd", "--method mha2mla"});
    expect_refused({"--method", "aligned", "--sigma", "up"}, {"--sigma"});
    expect_refused({"--method", "mha2mla", "--quality", "fast"}, {"--quality", "aligned"});
    expect_refused({"--kv-reduction", "0.5", "--rope-dim", "8", "--kv-rank", "8"}, {"leave one out"});
    expect_refused({"--svd", "key", "--kv-reduction", "0.5"}, {"--svd key", "--kv-rank"});
    expect_refused({"--method", "mha2mla", "--kv-reduction", "0.95"}, {"3 numbers", "--rope-dim"});
    expect_refused({"--svd", "joint", "--kv-balance", "2"}, {"--kv-balance", "whitened"});
    expect_refused({"--kv-balance", "much", "--svd", "whitened"}, {"much", "auto"});
    expect_refused({"--max-memory", "50MB"}, {"aligning on", "--samples", "--max-memory"});
    expect_refused({"--samples", "auto", "--calibration-text", kText}, {"--samples auto"}, false);
}

}  // namespace
}  // namespace mha2mla::test
