// Error messages of the program: one line that names the problem and the remedy, and the exit code.
#include <algorithm>

#include "support/program.hpp"
#include "support/sanitized.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

const std::string kModel = example("kjv-1.8M").string();
const std::string kText = example("kjv-eval.txt").string();
// Nothing is there, and what is refused writes nothing.
const std::string kNowhere = (std::filesystem::temp_directory_path() / "mha2mla-tests-nothing-is-here").string();

void expect_failure(const std::vector<std::string>& arguments, int code, const std::vector<std::string>& needles) {
    const auto result = run_program(arguments);
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_EQ(result.out, "");
    const auto at = result.err.find("error: ");
    ASSERT_NE(at, std::string::npos) << result.err;
    const std::string line = result.err.substr(at, result.err.find('\n', at) - at);
    for (const auto& needle : needles) EXPECT_NE(line.find(needle), std::string::npos) << needle << " in: " << line;
}

TEST(ErrorCli, WrongOptionsExitWith2) {
    expect_failure({}, 2, {"subcommand"});
    expect_failure({"frobnicate"}, 2, {"frobnicate"});
    expect_failure({"eval", kModel, "--no-such-option"}, 2, {"--no-such-option"});
    expect_failure({"eval", kModel}, 2, {"--text", "--tokens"});
    expect_failure({"eval", kModel, "--text", kText, "--context", "1"}, 2, {"--context"});
    expect_failure({"convert", kModel, kNowhere, "--rope", "best"}, 2, {"--rope", "best", "uniform"});
    expect_failure({"convert", kModel, kNowhere}, 2, {"--calibration-text", "--method mha2mla --rope uniform"});
    expect_failure({"convert", kModel, kNowhere, "--method", "mha2mla"}, 2,
                   {"--rope 2-norm", "--calibration-text", "--stats", "--rope uniform"});
    expect_failure({"convert", kModel, kNowhere, "--rope", "uniform", "--svd", "whitened"}, 2,
                   {"--svd whitened", "--calibration-text", "--svd joint"});
    expect_failure({"convert", kModel, kNowhere, "--rope", "high", "--rope-dim", "5"}, 2, {"rope-dim", "even", "32"});
    expect_failure({"convert", kModel, kNowhere, "--rope", "high", "--kv-rank", "100"}, 2, {"kv-rank 100", "at most"});
    expect_failure({"convert", kModel, kNowhere, "--rope", "high", "--max-shard-size", "5 potatoes"}, 2,
                   {"5 potatoes", "5GB"});
    expect_failure({"convert", kModel, kNowhere, "--rope", "high", "--uniform-start", "1"}, 2, {"--uniform-start"});
    expect_failure({"convert", kModel, kNowhere, "--rope", "high", "--samples", "9"}, 2,
                   {"--samples", "--calibration-text"});
    expect_failure({"convert", kModel, kModel, "--rope", "high"}, 2, {"same directory"});
    expect_failure({"calibrate", kModel, "--text", kText}, 2, {"--output"});
    expect_failure({"calibrate", kModel, "--text", kText, "-o", kNowhere, "--samples", "many"}, 2, {"many", "auto"});
    expect_failure({"calibrate", kModel, "--text", kText, "-o", kNowhere, "--rope-dim", "4"}, 2, {"--samples auto"});
    expect_failure({"calibrate", kModel, "--text", kText, "-o", kNowhere, "--samples", "auto", "--rope-dim", "5"}, 2,
                   {"rope-dim", "even"});
    expect_failure({"plan", kModel, "--kv-bits", "5"}, 2, {"--kv-bits"});
    expect_failure({"eval", kModel, "--text", kText, "--context", "10000000"}, 2, {"fewer than one window"});
}

TEST(ErrorCli, JsonLinesAreReadAndNotScored) {
    const TemporaryDirectory directory;
    const std::string text = "In the beginning God created the heaven and the earth. And the earth was without form.";
    write_text(directory / "a.txt", text);
    write_text(directory / "a.jsonl", nlohmann::json{{"id", 1}, {"text", text}}.dump() + "\n\n");
    const auto scored = [&](const char* name) {
        return run_program({"eval", kModel, "--text", directory / name, "--context", "16", "--json"}).out;
    };
    EXPECT_NE(scored("a.txt").find("nll"), std::string::npos);
    EXPECT_EQ(nlohmann::json::parse(scored("a.jsonl")).at("nll"), nlohmann::json::parse(scored("a.txt")).at("nll"));
    // From a pipe, from standard input and behind a byte order mark it is the same text.
    const auto same = [&](const std::vector<std::string>& arguments, const std::string& prefix = "") {
        std::vector<std::string> all = {"eval", kModel, "--context", "16", "--json", "-q", "--text"};
        all.insert(all.end(), arguments.begin(), arguments.end());
        const auto result = run_program(all, prefix);
        ASSERT_EQ(result.exit_code, 0) << result.err;
        EXPECT_EQ(nlohmann::json::parse(result.out).at("nll"), nlohmann::json::parse(scored("a.txt")).at("nll"));
    };
    const std::string file = directory / "a.txt";
    same({"-"}, "cat " + file + " |");
    same({"/dev/stdin"}, "cat " + file + " |");
    write_text(directory / "marked.txt", "\xef\xbb\xbf" + text);
    same({directory / "marked.txt"});
    write_text(directory / "packed.txt", "\x1f\x8b\x08");
    expect_failure({"eval", kModel, "--text", directory / "packed.txt"}, 1, {"packed.txt", "ends early"});
    write_text(directory / "wide.txt", "\xff\xfeh");
    expect_failure({"eval", kModel, "--text", directory / "wide.txt"}, 1, {"wide.txt is UTF-16", "iconv"});
    write_text(directory / "b.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n");
    expect_failure({"eval", kModel, "--text", directory / "b.jsonl", "--context", "16"}, 1,
                   {"b.jsonl", "line 2", "'text'"});
}

TEST(ErrorCli, MissingFilesExitWith1AndAreNamed) {
    expect_failure({"eval", "/no/such/dir", "--text", kText}, 1, {"/no/such/dir"});
    expect_failure({"eval", kModel, "--text", "/no/such.txt"}, 1, {"/no/such.txt", "No such file"});
    expect_failure({"convert", kModel, kNowhere, "--stats", "/no/such.safetensors"}, 1, {"/no/such.safetensors"});
    expect_failure({"convert", "/no/such/dir", kNowhere}, 1,
                   {"/no/such/dir"});  // reported before other missing arguments
    expect_failure({"plan", "/no/config.json"}, 1, {"/no/config.json"});
}

TEST(ErrorCli, AnOutputThatExistsIsNotTouched) {
    const TemporaryDirectory directory;
    write_text(directory.path() / "precious.txt", "mine");
    expect_failure({"convert", kModel, directory.path().string(), "--rope", "high"}, 1, {"--overwrite"});
    EXPECT_EQ(read_text(directory.path() / "precious.txt"), "mine");
}

TEST(ErrorCli, AnUnknownFamilyIsNamed) {
    const TemporaryDirectory directory;
    auto config = read_json(std::filesystem::path(kModel) / "config.json");
    config["model_type"] = "mamba";
    write_text(directory.path() / "config.json", config.dump());
    expect_failure({"plan", directory.path().string()}, 1, {"'mamba'", "llama"});
}

TEST(ErrorCli, AConvertedCheckpointIsNotConvertedAgain) {
    const TemporaryDirectory directory;
    const std::string once = (directory.path() / "once").string();
    ASSERT_EQ(run_program({"convert", kModel, once, "--rope", "high"}).exit_code, 0);
    expect_failure({"convert", once, (directory.path() / "twice").string(), "--rope", "high"}, 2,
                   {"already converted"});
    expect_failure({"calibrate", once, "--text", kText, "-o", (directory.path() / "s").string()}, 2,
                   {"already converted"});
}

TEST(ErrorCli, ATruncatedShardIsNamed) {
    const TemporaryDirectory directory;
    for (const char* name : {"config.json", "tokenizer.json"}) {
        std::filesystem::copy_file(std::filesystem::path(kModel) / name, directory.path() / name);
    }
    const std::string weights = read_text(std::filesystem::path(kModel) / "model.safetensors");
    write_text(directory.path() / "model.safetensors", weights.substr(0, weights.size() / 2));
    expect_failure({"inspect", directory.path().string()}, 1, {"model.safetensors", "truncated"});
}

TEST(ErrorCli, AFullDiskEndsACalibrationThatNeedsIt) {
    if (kThreadSanitizer) GTEST_SKIP() << "ThreadSanitizer maps a larger file than the limit allows";
    const TemporaryDirectory directory;
    const std::string stats = (directory.path() / "stats.safetensors").string();
    const auto spill = directory.path() / "spill";
    std::filesystem::create_directory(spill);
    const auto calibrate = [&](const std::string& memory, const std::string& prefix) {
        return run_program({"calibrate", kModel, "--text", kText, "--seq-len", "128", "--samples", "40", "--threads",
                            "1", "--max-memory", memory, "--output", stats},
                           prefix + " TMPDIR='" + spill.string() + "'");
    };
    const std::string refused = calibrate("1", "").err;
    const auto at = refused.find("at least ");
    ASSERT_NE(at, std::string::npos) << refused;
    const std::string least = refused.substr(at + 9, refused.find(' ', at + 9) - at - 9);

    const auto full = calibrate(least, "ulimit -f 100;");
    EXPECT_EQ(full.exit_code, 1);
    EXPECT_NE(full.err.find("cannot write hidden states"), std::string::npos) << full.err;
    EXPECT_NE(full.err.find("TMPDIR"), std::string::npos) << full.err;
    EXPECT_TRUE(std::filesystem::is_empty(spill));
    EXPECT_FALSE(std::filesystem::exists(stats));

    ASSERT_EQ(calibrate(least, "").exit_code, 0);
    const std::string spilled = read_text(stats);
    ASSERT_EQ(calibrate("8GB", "ulimit -f 100;").exit_code, 0);
    EXPECT_EQ(read_text(stats), spilled);
}

TEST(ErrorCli, AClosedPipeIsReported) {
    const auto result = run_program({"inspect", kModel}, "exec >/dev/full;");
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find("standard output"), std::string::npos);
}

}  // namespace
}  // namespace mha2mla::test
