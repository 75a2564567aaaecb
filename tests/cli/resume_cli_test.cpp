// Resuming a conversion after a kill, an interruption or an error.
#include <algorithm>
#include <map>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

void write_model(const fs::path& directory) { write_tiny_model(directory, tiny_model_of_many_pieces()); }

std::vector<std::string> convert(const fs::path& model, const fs::path& out,
                                 const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"convert", model.string(),     out.string(), "--rope", "uniform", "--threads",
                                          "1",       "--max-shard-size", "3MB"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

/// All files except the two that contain the path of the output.
std::map<std::string, std::string> files_in(const fs::path& directory) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(directory)) {
        const std::string name = entry.path().filename().string();
        if (name != "README.md" && name != "mha2mla.json") files[name] = read_text(entry.path());
    }
    return files;
}

std::size_t lines_of_journal(const fs::path& out) {
    if (!fs::exists(out / "mha2mla.journal.jsonl")) return 0;
    const std::string text = read_text(out / "mha2mla.journal.jsonl");
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

/// A prefix that sends `signal` to the program when its journal has `lines` lines.
std::string end_at(const fs::path& out, int lines, const std::string& signal) {
    return "( until [ \"$(cat " + (out / "mha2mla.journal.jsonl").string() + " 2>/dev/null | wc -l)\" -ge " +
           std::to_string(lines) + " ]; do kill -0 $$ 2>/dev/null || exit; sleep 0.005; done; kill -" + signal +
           " $$ ) & exec";
}

/// Interruptions at every event are in interruption_test.cpp; this is the program, the signal and the exit code.
TEST(ResumeCli, AKillLosesOnlyWhatWasNotFinished) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out";
    write_model(model);
    ASSERT_EQ(run_program(convert(model, directory / "whole")).exit_code, 0);
    EXPECT_EQ(run_program(convert(model, out, {"--resume"}), end_at(out, 1, "KILL")).exit_code, 137);
    EXPECT_FALSE(fs::exists(out / "config.json"));
    const auto result = run_program(convert(model, out, {"--resume"}));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(files_in(out), files_in(directory / "whole"));
    EXPECT_EQ(read_json(out / "mha2mla.json").at("files"), read_json(directory / "whole/mha2mla.json").at("files"));
}

/// An unfinished conversion: interrupted when at least one piece was recorded.
void interrupt(const fs::path& model, const fs::path& out, const std::vector<std::string>& more = {}) {
    const auto result = run_program(convert(model, out, more), end_at(out, 2, "INT"));
    ASSERT_EQ(result.exit_code, 130) << result.err;
    EXPECT_NE(result.err.find("--resume"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("pieces are kept"), std::string::npos) << result.err;
    ASSERT_GE(lines_of_journal(out), 2U);
}

TEST(ResumeCli, AnInterruptionKeepsPiecesThatAreNeitherRedoneNorTrustedUnseen) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out";
    write_model(model);
    ASSERT_EQ(run_program(convert(model, directory / "whole")).exit_code, 0);
    interrupt(model, out);
    EXPECT_FALSE(fs::exists(out / "config.json"));
    const auto recorded = lines_of_journal(out) - 1;

    const auto refused = run_program(convert(model, out));
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(refused.err.find("--resume"), std::string::npos) << refused.err;

    // One byte of a recorded piece is changed, and the last line of the journal is truncated.
    const auto journal = read_text(out / "mha2mla.journal.jsonl");
    write_text(out / "mha2mla.journal.jsonl", journal.substr(0, journal.size() - 5));
    std::vector<fs::path> shards;
    for (const auto& entry : fs::directory_iterator(out / ".mha2mla.incomplete")) {
        if (entry.path().extension() == ".safetensors") shards.push_back(entry.path());
    }
    for (const auto& shard : shards) {
        std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(fs::file_size(shard) / 2));
        file.put('\x5a');
    }
    const auto result = run_program(convert(model, out, {"--resume", "--json"}));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_LT(nlohmann::json::parse(result.out).at("pieces_resumed"), recorded);
    EXPECT_EQ(files_in(out), files_in(directory / "whole"));
}

TEST(ResumeCli, AChangedSettingOrSourceIsRefusedByName) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out";
    write_model(model);
    interrupt(model, out);
    const auto refused = [&](const std::vector<std::string>& more, const std::string& needle) {
        auto arguments = convert(model, out, more);
        arguments.emplace_back("--resume");
        const auto result = run_program(arguments);
        EXPECT_EQ(result.exit_code, 2);
        EXPECT_NE(result.err.find(needle), std::string::npos) << result.err;
    };
    refused({"--kv-rank", "8"}, "kv-rank was 16 and is 8");
    refused({"--svd", "split"}, "svd was joint and is split");
    write_text(model / "tokenizer.json", "{}");
    refused({}, "tokenizer.json was not there");
    EXPECT_GT(lines_of_journal(out), 1U) << "a refusal touches nothing";
    EXPECT_EQ(run_program(convert(model, out, {"--overwrite"})).exit_code, 0);
    EXPECT_FALSE(fs::exists(out / "mha2mla.journal.jsonl"));
}

TEST(ResumeCli, AFullDiskIsResumedWhenThereIsRoom) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out";
    write_model(model);
    ASSERT_EQ(run_program(convert(model, directory / "whole")).exit_code, 0);
    const auto full = run_program(convert(model, out, {"--resume"}), "ulimit -f 1500;");
    EXPECT_EQ(full.exit_code, 1);
    EXPECT_NE(full.err.find("free some space"), std::string::npos) << full.err;
    const auto result = run_program(convert(model, out, {"--resume"}));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(files_in(out), files_in(directory / "whole"));
}

TEST(ResumeCli, AWholeOutputIsLeftAsItIs) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out";
    write_tiny_model(model, {});
    ASSERT_EQ(run_program(convert(model, out)).exit_code, 0);
    const auto before = fs::last_write_time(out / "config.json");
    const auto again = run_program(convert(model, out, {"--resume"}));
    EXPECT_EQ(again.exit_code, 0) << again.err;
    EXPECT_NE(again.out.find("already converted"), std::string::npos);
    EXPECT_EQ(fs::last_write_time(out / "config.json"), before);
    EXPECT_EQ(run_program(convert(model, out, {"--resume", "--kv-rank", "2"})).exit_code, 1);
}

}  // namespace
}  // namespace mha2mla::test
