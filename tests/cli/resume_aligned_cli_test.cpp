// Resuming an aligned conversion, after a kill or an interruption, behind its finished layers.
#include <algorithm>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;
const std::string kModel = example("kjv-1.8M").string();
const std::string kText = example("kjv-calibration.txt").string();

class ResumeAlignedCli : public testing::Test {
protected:
    ProgramResult convert(const std::string& name, const std::vector<std::string>& more = {},
                          const std::string& prefix = "") {
        std::vector<std::string> arguments = {"convert", kModel,      path(name), "--calibration-text",
                                              kText,     "--seq-len", "64"};
        if (std::ranges::find(more, "--samples") == more.end()) arguments.insert(arguments.end(), {"--samples", "4"});
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments, prefix);
    }
    [[nodiscard]] std::string path(const std::string& name) const { return (directory_ / name).string(); }
    [[nodiscard]] std::string weights(const std::string& name) const {
        return read_text(directory_ / name / "model.safetensors");
    }
    /// A prefix that ends the program with `signal` when the journal has `layers` layers and the aligner was saved
    /// after the last of them.
    [[nodiscard]] std::string end_behind(const std::string& name, int layers, const std::string& signal) const {
        const std::string journal = path(name) + "/mha2mla.journal.jsonl";
        const std::string state = path(name) + "/mha2mla.alignment.safetensors";
        return "( until [ \"$(cat " + journal + " 2>/dev/null | wc -l)\" -gt " + std::to_string(layers) + " ] && [ ! " +
               state + " -ot " + journal + " ]; do kill -0 $$ 2>/dev/null || exit; sleep 0.005; " + "done; kill -" +
               signal + " $$ ) & exec";
    }
    TemporaryDirectory directory_;
};

TEST_F(ResumeAlignedCli, FinishedLayersAreNotAlignedAgainAfterAKill) {
    const auto whole = convert("whole", {"--json"});
    ASSERT_EQ(whole.exit_code, 0) << whole.err;
    const auto report = nlohmann::json::parse(whole.out);
    for (int layers = 1; layers < 4; ++layers) {
        const std::string name = "killed" + std::to_string(layers);
        EXPECT_EQ(convert(name, {}, end_behind(name, layers, "KILL")).exit_code, 137);
        EXPECT_FALSE(fs::exists(directory_ / name / "config.json"));
        const auto resumed = convert(name, {"--resume", "--json"});
        ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
        const auto json = nlohmann::json::parse(resumed.out);
        EXPECT_GE(json.at("pieces_resumed"), layers);
        EXPECT_EQ(json.at("alignment_error"), report.at("alignment_error"));
        EXPECT_EQ(json.at("rope_dim"), report.at("rope_dim"));
        EXPECT_EQ(weights(name), weights("whole"));
        EXPECT_FALSE(fs::exists(directory_ / name / "mha2mla.alignment.safetensors"));
        EXPECT_NE(resumed.err.find("going on with layer " + std::to_string(layers)), std::string::npos) << resumed.err;
    }
}

TEST_F(ResumeAlignedCli, AnInterruptionKeepsWhatIsFinishedAndSaysHowToGoOn) {
    const auto interrupted = convert("out", {}, end_behind("out", 1, "INT"));
    EXPECT_EQ(interrupted.exit_code, 130) << interrupted.err;
    EXPECT_NE(interrupted.err.find("--resume"), std::string::npos) << interrupted.err;
    EXPECT_TRUE(fs::exists(directory_ / "out/mha2mla.alignment.safetensors"));

    const auto refused = [&](const std::vector<std::string>& more, const std::string& needle) {
        const auto result = convert("out", more);
        EXPECT_EQ(result.exit_code, 2) << result.err;
        EXPECT_NE(result.err.find(needle), std::string::npos) << result.err;
    };
    refused({"--resume", "--quality", "best"}, "quality was fast and is best");
    refused({"--resume", "--samples", "5"}, "samples was 4 and is 5");
    ASSERT_EQ(convert("out", {"--resume"}).exit_code, 0);
    ASSERT_EQ(convert("whole").exit_code, 0);
    EXPECT_EQ(weights("out"), weights("whole"));
}

TEST_F(ResumeAlignedCli, WhatWasDamagedMeanwhileIsNotTrusted) {
    ASSERT_EQ(convert("whole").exit_code, 0);
    ASSERT_EQ(convert("state", {}, end_behind("state", 2, "KILL")).exit_code, 137);
    const fs::path state = directory_ / "state/mha2mla.alignment.safetensors";
    std::string bytes = read_text(state);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write_text(state, bytes);
    const auto again = convert("state", {"--resume"});
    EXPECT_EQ(again.exit_code, 0) << again.err;
    EXPECT_NE(again.err.find("aligning starts with layer 0"), std::string::npos) << again.err;
    EXPECT_EQ(weights("state"), weights("whole"));

    ASSERT_EQ(convert("layer", {}, end_behind("layer", 2, "KILL")).exit_code, 137);
    const fs::path unfinished = directory_ / "layer/.mha2mla.incomplete/model.safetensors";
    fs::resize_file(unfinished, 4096);  // within the header
    const auto refused = convert("layer", {"--resume"});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(refused.err.find("--overwrite"), std::string::npos) << refused.err;
    EXPECT_EQ(convert("layer", {"--overwrite"}).exit_code, 0);
    EXPECT_EQ(weights("layer"), weights("whole"));
}

TEST_F(ResumeAlignedCli, ABatchGoesOnWithTheJobThatWasKilled) {
    ASSERT_EQ(convert("whole").exit_code, 0);
    write_text(directory_ / "recipe.json", R"({"defaults": {"source": ")" + kModel + R"(", "calibration-text": ")" +
                                               kText + R"(", "samples": 4, "seq-len": 64},
        "jobs": [{"destination": "out"}]})");
    EXPECT_EQ(run_program({"batch", path("recipe.json")}, end_behind("out", 2, "KILL")).exit_code, 137);
    const auto resumed = run_program({"batch", path("recipe.json")});
    EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_NE(resumed.err.find("going on with layer 2"), std::string::npos) << resumed.err;
    EXPECT_EQ(weights("out"), weights("whole"));
}

}  // namespace
}  // namespace mha2mla::test
