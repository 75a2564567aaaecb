// Commands of different kinds at one destination: none takes what another left for nothing, or for its own.
#include <algorithm>

#include "mha2mla/model.hpp"
#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

class OneDestination : public testing::Test {
protected:
    void SetUp() override {
        write_text(text_, read_text(example("kjv-eval.txt")).substr(0, 20'000));
        fs::copy(example("kjv-1.8M"), model_, fs::copy_options::recursive);
    }

    [[nodiscard]] ProgramResult convert(const std::vector<std::string>& more = {}, const std::string& prefix = "") {
        return run("convert", {"--method", "mha2mla", "--rope", "uniform"}, more, prefix);
    }
    [[nodiscard]] ProgramResult finetune(const std::vector<std::string>& more = {}, const std::string& prefix = "") {
        return run("finetune", {"--text", text_, "--seq-len", "32", "--batch", "2", "--steps", "3"}, more, prefix);
    }
    /// Leaves some pieces of a conversion, and its journal.
    void leave_unfinished_conversion() {
        ASSERT_EQ(convert({"--resume"}, "ulimit -f 2000; exec").exit_code, 1);
        ASSERT_TRUE(fs::exists(out_ / "mha2mla.journal.jsonl"));
    }
    /// Leaves the state of a training run.
    void leave_unfinished_training() {
        const auto state = out_ / "mha2mla.training-run.safetensors";
        const std::string kill = "(while ! ls " + state.string() +
                                 " >/dev/null 2>&1; do sleep 0.01; done; pkill -KILL -f " + out_.string() + ") & exec";
        ASSERT_NE(finetune({"--steps", "400", "--save-every", "1"}, kill).exit_code, 0);
        ASSERT_TRUE(fs::exists(state));
    }
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> names;
        for (const auto& entry : fs::directory_iterator(out_)) names.push_back(entry.path().filename().string());
        std::ranges::sort(names);
        return names;
    }
    [[nodiscard]] bool holds(const std::string& part) const {
        const auto all = names();
        return std::ranges::any_of(all, [&](const auto& name) { return name.find(part) != std::string::npos; });
    }
    static void expect_refused(const ProgramResult& result, int code, const std::string& part) {
        EXPECT_EQ(result.exit_code, code) << result.err;
        EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
    }

    TemporaryDirectory directory_;
    fs::path model_ = directory_ / "model", out_ = directory_ / "out", text_ = directory_ / "t.txt";

private:
    [[nodiscard]] ProgramResult run(const std::string& command, std::vector<std::string> arguments,
                                    const std::vector<std::string>& more, const std::string& prefix) const {
        arguments.insert(arguments.begin(), {command, model_, out_, "-q"});
        for (auto option = more.begin(); option != more.end(); ++option) {
            const auto given = std::ranges::find(arguments, *option);
            if (given != arguments.end()) arguments.erase(given, given + 2);  // given once more
        }
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments, prefix);
    }
};

TEST_F(OneDestination, TrainingDoesNotTakeAnUnfinishedConversionForNothing) {
    leave_unfinished_conversion();
    expect_refused(finetune(), 1, "holds an unfinished output");
    expect_refused(finetune({"--resume"}), 1, "holds an unfinished output");
    ASSERT_EQ(convert({"--resume"}).exit_code, 0);
    EXPECT_TRUE(Model::open(out_).config.latent);
}

TEST_F(OneDestination, TrainingThatReplacesAnUnfinishedConversionLeavesNothingOfIt) {
    leave_unfinished_conversion();
    ASSERT_EQ(finetune({"--overwrite"}).exit_code, 0);
    EXPECT_FALSE(holds("journal") || holds(".mha2mla"));
    const std::string trained = read_text(out_ / "model.safetensors");
    expect_refused(convert({"--resume"}), 1, "not empty");
    EXPECT_EQ(read_text(out_ / "model.safetensors"), trained);
}

TEST_F(OneDestination, AConversionThatReplacesTrainingLeavesNothingOfIt) {
    leave_unfinished_training();
    expect_refused(convert(), 1, "unfinished training run");
    expect_refused(convert({"--resume"}), 1, "unfinished training run");
    ASSERT_EQ(convert({"--overwrite"}).exit_code, 0);
    EXPECT_FALSE(holds("training"));
    const std::string converted = read_text(out_ / "model.safetensors");
    expect_refused(finetune({"--steps", "400", "--save-every", "1", "--resume"}), 1, "not empty");
    EXPECT_EQ(read_text(out_ / "model.safetensors"), converted);
}

TEST_F(OneDestination, ARecordAloneIsNoFinishedRun) {
    ASSERT_EQ(finetune().exit_code, 0);
    const std::string trained = read_text(out_ / "model.safetensors");
    EXPECT_EQ(finetune({"--resume"}).exit_code, 0);
    write_text(out_ / "model.safetensors", trained.substr(0, 1000));
    expect_refused(finetune({"--resume"}), 1, "not empty");
    ASSERT_EQ(finetune({"--resume", "--overwrite"}).exit_code, 0);
    EXPECT_EQ(read_text(out_ / "model.safetensors"), trained);
    // A conversion in its place is none either, and the record goes with what it is of.
    ASSERT_EQ(convert({"--overwrite"}).exit_code, 0);
    EXPECT_FALSE(holds("training"));
    expect_refused(finetune({"--resume"}), 1, "not empty");
    // What a source has of a training run is not of its conversion.
    fs::remove_all(out_);
    ASSERT_EQ(finetune().exit_code, 0);
    fs::remove_all(model_);
    fs::rename(out_, model_);
    ASSERT_EQ(convert().exit_code, 0);
    EXPECT_FALSE(holds("training"));
}

TEST_F(OneDestination, WhatAKilledRunLeftBesideItsOutputGoes) {
    ASSERT_EQ(finetune().exit_code, 0);
    const auto whole = names();
    write_text(out_ / "mha2mla.journal.jsonl", "");
    for (const char* name : {"mha2mla.training-run.jsonl", "mha2mla.training-run.safetensors",
                             "mha2mla.training-run.json.incomplete", "mha2mla.training-best.safetensors"}) {
        write_text(out_ / name, "left");
    }
    ASSERT_EQ(finetune({"--resume"}).exit_code, 0);
    EXPECT_EQ(names(), whole);
}

TEST_F(OneDestination, TrainingReplacesNothingThatItReads) {
    const std::string weights = read_text(model_ / "model.safetensors");
    const auto teacher = directory_ / "teacher";
    fs::copy(model_, teacher, fs::copy_options::recursive);
    const auto train_into = [&](const fs::path& place, std::vector<std::string> more) {
        more.insert(more.begin(), {"finetune", model_, place, "--seq-len", "32", "--steps", "1", "--overwrite", "-q"});
        return run_program(more);
    };
    expect_refused(train_into(teacher, {"--text", text_, "--teacher", teacher}), 2, "is the teacher");
    expect_refused(train_into(model_, {"--text", text_}), 2, "is the checkpoint to train");
    fs::create_directories(directory_ / "corpus");
    write_text(directory_ / "corpus/training.jsonl", R"({"text": "And God said, Let there be light"})");
    expect_refused(train_into(directory_ / "corpus", {"--text", directory_ / "corpus/training.jsonl"}), 2, "is read");
    EXPECT_EQ(read_text(model_ / "model.safetensors"), weights);
    EXPECT_EQ(read_text(teacher / "model.safetensors"), weights);
}

TEST_F(OneDestination, ALinkThatLeadsElsewhereIsNotPublishedByTraining) {
    write_text(directory_ / "secret", "the password");
    fs::remove(model_ / "README.md");
    fs::create_symlink(directory_ / "secret", model_ / "README.md");
    fs::create_symlink(directory_ / "secret", model_ / "a_rank.pth");
    fs::create_symlink("loop", model_ / "loop");
    ASSERT_EQ(finetune().exit_code, 0);
    for (const auto& name : names()) EXPECT_EQ(read_text(out_ / name).find("password"), std::string::npos) << name;
}

TEST_F(OneDestination, AFailureToPublishKeepsTheTraining) {
    // The state is 6 times as large as these weights in 16 bits; a value does not fit F16 after the last step alone.
    const std::vector<std::string> large = {"--learning-rate", "1e6", "--lr-schedule", "constant",
                                            "--warmup-steps",  "0",   "--steps",       "1",
                                            "--clip",          "0",   "--dtype",       "f16"};
    const auto failed = finetune(large);
    expect_refused(failed, 1, "does not fit F16");
    EXPECT_TRUE(holds("training-run.safetensors")) << failed.err;
    auto other = large;
    other.back() = "bf16";
    other.emplace_back("--resume");
    EXPECT_EQ(finetune(other).exit_code, 0);
    EXPECT_FALSE(holds("training-run"));
}

TEST_F(OneDestination, NumbersThatAreNoneAreRefused) {
    for (const char* option :
         {"--learning-rate", "--weight-decay", "--clip", "--eval-fraction", "--min-learning-rate"}) {
        for (const char* value : {"nan", "inf", "-1"}) {
            EXPECT_EQ(finetune({option, value}).exit_code, 2) << option << " " << value;
        }
    }
    EXPECT_EQ(run_program({"verify", model_, model_, "--text", text_, "--max-kl", "nan"}).exit_code, 2);
    expect_refused(finetune({"--learning-rate", "1e38", "--lr-schedule", "constant", "--warmup-steps", "0"}), 1,
                   "finite");
    EXPECT_FALSE(fs::exists(out_ / "config.json"));
}

}  // namespace
}  // namespace mha2mla::test
