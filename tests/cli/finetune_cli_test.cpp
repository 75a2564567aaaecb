// `mha2mla finetune` as a user sees it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

class FinetuneCli : public testing::Test {
protected:
    [[nodiscard]] ProgramResult run(std::vector<std::string> more, const std::string& prefix = "") const {
        std::vector<std::string> arguments = {"finetune",
                                              example("kjv-1.8M"),
                                              out_,
                                              "--text",
                                              example("kjv-eval.txt"),
                                              "--seq-len",
                                              "64",
                                              "--batch",
                                              "4",
                                              "--steps",
                                              "6",
                                              "--learning-rate",
                                              "3e-4",
                                              "-q"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments, prefix);
    }
    [[nodiscard]] std::vector<nlohmann::json> log() const {
        std::vector<nlohmann::json> lines;
        std::ifstream file(out_ / "training.jsonl");
        for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
        return lines;
    }
    TemporaryDirectory directory_;
    std::filesystem::path out_ = directory_ / "out";
};

TEST_F(FinetuneCli, WritesAModelThatIsBetterOnItsText) {
    const auto result = run({"--eval-fraction", "0.02", "--eval-every", "3", "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out);
    EXPECT_EQ(json.at("steps"), 6);
    EXPECT_EQ(json.at("tokens"), 6 * 4 * 64);
    EXPECT_LT(json.at("nll_after"), json.at("nll_before"));
    const auto lines = log();
    ASSERT_EQ(lines.size(), 9U);  // 6 steps and 3 evaluations
    EXPECT_EQ(lines[0].at("nll"), json.at("nll_before"));
    EXPECT_EQ(lines.back().at("nll"), json.at("nll_after"));
    EXPECT_EQ(lines[1].at("learning_rate"), 0);  // as the reference's rule begins
    EXPECT_EQ(lines[2].at("learning_rate"), 3e-4);
    const auto scored = run_program(
        {"eval", out_, "--text", example("kjv-eval.txt"), "--context", "64", "--max-windows", "8", "--json", "-q"});
    EXPECT_EQ(scored.exit_code, 0) << scored.err;
    EXPECT_NE(read_text(out_ / "README.md").find("## Fine-tuning"), std::string::npos);
    for (const char* name : {"tokenizer.json", "config.json", "mha2mla.training.json"}) {
        EXPECT_TRUE(std::filesystem::exists(out_ / name)) << name;
    }
    // The page of its log.
    const auto page = directory_ / "training.html";
    const auto reported = run_program({"report", "--training", out_ / "training.jsonl", "--html", page});
    ASSERT_EQ(reported.exit_code, 0) << reported.err;
    EXPECT_NE(reported.out.find("6 steps, NLL"), std::string::npos) << reported.out;
    const std::string html = read_text(page);
    for (const char* part : {"NLL of the evaluation text", "Loss of each step", "<polyline", "Learning rate"}) {
        EXPECT_NE(html.find(part), std::string::npos) << part;
    }
    write_text(directory_ / "bad.jsonl", read_text(out_ / "training.jsonl").substr(0, 40) + "\n{\"step\": 1}\n");
    const auto bad = run_program({"report", "--training", directory_ / "bad.jsonl", "--html", directory_ / "bad.html"});
    EXPECT_EQ(bad.exit_code, 1);
    EXPECT_NE(bad.err.find("bad.jsonl: line 2 is not of a training log"), std::string::npos) << bad.err;
    // Done is done.
    const auto again = run({"--eval-fraction", "0.02", "--eval-every", "3", "--json", "--resume"});
    ASSERT_EQ(again.exit_code, 0) << again.err;
    EXPECT_EQ(nlohmann::json::parse(again.out).at("already_finished"), true);
    const auto refused = run({});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(refused.err.find("--overwrite"), std::string::npos) << refused.err;
}

TEST_F(FinetuneCli, GoesOnAfterAKillToTheSameBytes) {
    ASSERT_EQ(run({"--save-every", "2"}).exit_code, 0);
    const std::string expected = read_text(out_ / "model.safetensors");
    std::filesystem::remove_all(out_);
    // The shell kills the program as soon as the state of step 2 or 4 is there.
    const std::string wait = "(while ! ls " + out_.string() +
                             "/mha2mla.training-run.safetensors >/dev/null 2>&1; do sleep 0.01; done; "
                             "pkill -KILL -f " +
                             out_.string() + ") & ";
    const auto killed = run({"--save-every", "2", "--threads", "1"}, wait);
    ASSERT_NE(killed.exit_code, 0);
    EXPECT_FALSE(std::filesystem::exists(out_ / "config.json"));
    const auto other = run({"--save-every", "2", "--seed", "5"});
    EXPECT_EQ(other.exit_code, 1);
    EXPECT_NE(other.err.find("unfinished"), std::string::npos) << other.err;
    const auto different = run({"--save-every", "2", "--seed", "5", "--resume"});
    EXPECT_EQ(different.exit_code, 2);
    EXPECT_NE(different.err.find("seed"), std::string::npos) << different.err;
    const auto resumed = run({"--save-every", "2", "--resume"});
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_EQ(read_text(out_ / "model.safetensors"), expected);
    EXPECT_EQ(log().size(), 6U);
    for (const auto& entry : std::filesystem::directory_iterator(out_)) {
        EXPECT_EQ(entry.path().filename().string().find("training-run"), std::string::npos) << entry.path();
    }
}

TEST_F(FinetuneCli, TheStateOfAnotherRunIsNotTakenForItsOwn) {
    const std::vector<std::string> settings = {"--save-every", "100", "--seed", "5", "--threads", "1"};
    const auto with = [&](const char* more) {
        std::vector<std::string> all = settings;
        all.emplace_back(more);
        return all;
    };
    ASSERT_EQ(run(settings).exit_code, 0);
    const std::string expected = read_text(out_ / "model.safetensors");
    std::filesystem::remove_all(out_);
    const std::string state = out_.string() + "/mha2mla.training-run.safetensors";
    const std::string kill = "; do sleep 0.01; done; pkill -KILL -f " + out_.string() + ") & ";
    ASSERT_NE(
        run({"--save-every", "2", "--threads", "1"}, "(while ! ls " + state + " >/dev/null 2>&1" + kill).exit_code, 0);
    ASSERT_TRUE(std::filesystem::exists(state));
    // Another one begins in its place, and is killed as soon as it has: before it has a state of its own.
    ASSERT_NE(run(with("--overwrite"), "(while ls " + state + " >/dev/null 2>&1" + kill).exit_code, 0);
    ASSERT_FALSE(std::filesystem::exists(state));
    const auto resumed = run(with("--resume"));
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_EQ(read_text(out_ / "model.safetensors"), expected);
    EXPECT_EQ(log().size(), 6U);
}

TEST_F(FinetuneCli, StartsAgainWhereTheSavedStateIsDamaged) {
    const std::vector<std::string> settings = {"--save-every", "2", "--eval-fraction", "0.02", "--eval-every", "2"};
    ASSERT_EQ(run(settings).exit_code, 0);
    const std::string expected = read_text(out_ / "model.safetensors");
    std::filesystem::remove_all(out_);
    const auto state = out_ / "mha2mla.training-run.safetensors";
    const std::string kill = "(while ! ls " + state.string() +
                             " >/dev/null 2>&1; do sleep 0.01; done; pkill -KILL -f " + out_.string() + ") & ";
    auto slow = settings;
    slow.insert(slow.end(), {"--threads", "1"});
    ASSERT_NE(run(slow, kill).exit_code, 0);
    std::string damaged = read_text(state);
    damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
    write_text(state, damaged);
    auto resume = settings;
    resume.emplace_back("--resume");
    const auto resumed = run(resume);
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_NE(resumed.err.find("training starts again"), std::string::npos) << resumed.err;
    EXPECT_EQ(read_text(out_ / "model.safetensors"), expected);
    EXPECT_EQ(log().size(), 10U);  // 6 steps and 4 evaluations
}

TEST_F(FinetuneCli, DistillsFromTheOriginal) {
    const auto converted = directory_ / "mla";
    ASSERT_EQ(run_program({"convert", example("kjv-1.8M"), converted, "--quality", "none", "--rope-dim", "24",
                           "--kv-rank", "36", "--samples", "8", "--seq-len", "64", "--calibration-text",
                           example("kjv-calibration.txt"), "-qq"})
                  .exit_code,
              0);
    const auto result = run_program({"finetune",
                                     converted,
                                     out_,
                                     "--teacher",
                                     example("kjv-1.8M"),
                                     "--text",
                                     example("kjv-calibration.txt"),
                                     "--seq-len",
                                     "64",
                                     "--batch",
                                     "8",
                                     "--steps",
                                     "12",
                                     "--learning-rate",
                                     "1e-3",
                                     "--train",
                                     "kv",
                                     "--eval-fraction",
                                     "0.002",
                                     "--hidden-weight",
                                     "0.1",
                                     "--json",
                                     "-q"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out);
    EXPECT_LT(json.at("nll_after").get<double>(), json.at("nll_before").get<double>() - 0.02);
    EXPECT_TRUE(log().back().contains("nll"));
    EXPECT_TRUE(log()[1].contains("teacher_kl"));
    EXPECT_TRUE(log()[1].contains("hidden_loss"));
}

TEST_F(FinetuneCli, SaysWhatIsWrongBeforeItWorks) {
    const auto expect = [&](const std::vector<std::string>& more, int code, const std::string& part) {
        const auto result = run(more);
        EXPECT_EQ(result.exit_code, code) << result.err;
        EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
        EXPECT_FALSE(std::filesystem::exists(out_));
    };
    expect({"--teacher-weight", "0.5"}, 2, "--teacher");
    expect({"--patience", "2"}, 2, "--eval-text");
    expect({"--eval-every", "2"}, 2, "--eval-fraction");
    expect({"--max-memory", "1MB"}, 2, "--max-memory");
    expect({"--warmup-steps", "6", "--decay-start", "2"}, 2, "warm-up");
    expect({"--train", "atention"}, 2, "attention");
    const auto dry = run({"--dry-run"});
    EXPECT_EQ(dry.exit_code, 0) << dry.err;
    EXPECT_NE(dry.out.find("6 steps of 256 tokens"), std::string::npos) << dry.out;
    EXPECT_EQ(dry.err, "");
    const auto long_ones = run_program(
        {"finetune", example("kjv-1.8M"), out_, "--text", example("kjv-eval.txt"), "--dry-run", "--seq-len", "1024"});
    EXPECT_NE(long_ones.err.find("longer than the model's 512 positions"), std::string::npos) << long_ones.err;
    EXPECT_FALSE(std::filesystem::exists(out_));
}

}  // namespace
}  // namespace mha2mla::test
