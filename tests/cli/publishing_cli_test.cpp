// Several processes at one destination, too few descriptors, and jobs of a batch that fail in unusual ways.
#include <algorithm>
#include <thread>

#include "mha2mla/model.hpp"
#include "support/program.hpp"
#include "support/sanitized.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> convert(const fs::path& model, const fs::path& out, int rope_dim,
                                 const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"convert",    model.string(),          out.string(), "--rope", "uniform",
                                          "--rope-dim", std::to_string(rope_dim)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

const std::vector<std::string> kWhole = {"README.md",    "config.json",       "configuration_mha2mla.py",
                                         "mha2mla.json", "model.safetensors", "modeling_mha2mla.py"};

/// All at once. @return their exit codes
std::vector<int> side_by_side(const std::vector<std::vector<std::string>>& commands) {
    std::vector<int> codes(commands.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < commands.size(); ++i) {
        threads.emplace_back([&, i] { codes[i] = run_program(commands[i]).exit_code; });
    }
    for (auto& thread : threads) thread.join();
    return codes;
}

TEST(PublishingCli, OfSeveralProcessesAtOneDestinationOneWins) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out";
    write_tiny_model(model, {});
    for (int trial = 0; trial < 8; ++trial) {
        const auto codes =
            side_by_side({convert(model, out, 2, {"--overwrite"}), convert(model, out, 4, {"--overwrite"}),
                          convert(model, out, 2, {"--overwrite"})});
        EXPECT_GE(std::count(codes.begin(), codes.end(), 0), 1);
        EXPECT_TRUE(std::ranges::all_of(codes, [](int code) { return code == 0 || code == 1; }));
        EXPECT_EQ(names_in(out), kWhole) << "trial " << trial;
        EXPECT_NO_THROW((void)Model::open(out));
    }
    fs::remove_all(out);
    const auto codes = side_by_side({convert(model, out, 2, {"--resume"}), convert(model, out, 2, {"--resume"}),
                                     convert(model, out, 2, {"--resume"})});
    EXPECT_EQ(codes, (std::vector<int>{0, 0, 0}));
    EXPECT_EQ(names_in(out), kWhole);
}

TEST(PublishingCli, TooFewDescriptorsDestroyNothing) {
    if (kSanitized) GTEST_SKIP() << "sanitizers need descriptors themselves, and end the program without one";
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out";
    write_tiny_model(model, {});
    ASSERT_EQ(run_program(convert(model, out, 2)).exit_code, 0);
    const std::string before = read_text(out / "model.safetensors");
    for (int limit = 6; limit < 26; ++limit) {
        const auto result =
            run_program(convert(model, out, 4, {"--overwrite"}), "ulimit -n " + std::to_string(limit) + ";");
        EXPECT_EQ(names_in(out), kWhole) << limit;
        EXPECT_NO_THROW((void)Model::open(out));
        EXPECT_EQ(result.err.find("filesystem error"), std::string::npos) << result.err;
        if (result.exit_code == 0) break;
        EXPECT_EQ(read_text(out / "model.safetensors"), before) << limit;
    }
}

TEST(PublishingCli, ABatchGoesOnWhateverAJobThrows) {
    const TemporaryDirectory directory;
    write_tiny_model(directory / "model", {});
    for (const std::string name : {"latin1", "edited"}) write_tiny_model(directory / name, {});
    write_text(directory / "latin1" / "note-\xe9.txt", "a name that is not UTF-8");
    ASSERT_EQ(run_program(convert(directory / "edited", directory / "out-edited", 2)).exit_code, 0);
    auto record = read_json(directory / "out-edited/mha2mla.json");
    record["fingerprint"] = 5;
    record["measured"] = {{"x", 1}};
    write_text(directory / "out-edited/mha2mla.json", record.dump());
    write_text(directory / "recipe.json", R"({"defaults": {"rope": "uniform", "rope-dim": 2}, "jobs": [
        {"source": "latin1", "destination": "out-latin1"},
        {"source": "edited", "destination": "out-edited"},
        {"source": "model", "destination": "good"}]})");
    const auto result = run_program({"batch", (directory / "recipe.json").string()});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.err.find("exception"), std::string::npos) << result.err;
    EXPECT_EQ(names_in(directory / "good"), kWhole) << result.out << result.err;
}

TEST(OutputPathsCli, NothingIsReplacedThatTheCommandDidNotWrite) {
    const TemporaryDirectory directory;
    const std::string model = (directory / "model").string();
    write_tiny_model(model, {});
    const std::string tokens = (directory / "tokens.u16").string(), stats = (directory / "stats").string();
    write_text(tokens, std::string(512, '\0'));
    const std::string notes = (directory / "notes.txt").string(), link = (directory / "link").string();
    write_text(notes, "the user's own");
    fs::create_symlink(notes, link);
    const std::string weights = read_text(model + "/model.safetensors");
    const auto calibrate = [&](const std::string& out, const std::vector<std::string>& more = {}) {
        std::vector<std::string> arguments = {"calibrate",      model, "--tokens",  tokens,
                                              "--token-format", "u16", "--seq-len", "16",
                                              "--samples",      "2",   "-o",        out};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments);
    };
    const auto report = [&](const std::vector<std::string>& more) {
        std::vector<std::string> arguments = {"report", stats};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return run_program(arguments);
    };
    ASSERT_EQ(calibrate(stats).exit_code, 0) << calibrate(stats).err;
    EXPECT_EQ(calibrate(stats).exit_code, 0) << "its own file";
    EXPECT_EQ(calibrate(tokens, {"--overwrite"}).exit_code, 2);
    EXPECT_EQ(calibrate(model + "/model.safetensors").exit_code, 2);
    EXPECT_EQ(calibrate(model + "/config.json", {"--overwrite"}).exit_code, 2);
    EXPECT_EQ(calibrate(model).exit_code, 2);
    EXPECT_EQ(calibrate(directory.path().string()).exit_code, 1);
    EXPECT_EQ(calibrate((directory / "none/stats").string()).exit_code, 1);
    EXPECT_EQ(calibrate(stats, {"--rank-file", stats}).exit_code, 2);
    EXPECT_EQ(calibrate("/dev/null", {"--overwrite"}).exit_code, 1);
    for (const auto& path : {notes, link}) {
        const auto refused = calibrate(path);
        EXPECT_EQ(refused.exit_code, 1);
        EXPECT_NE(refused.err.find("--overwrite"), std::string::npos) << refused.err;
        EXPECT_EQ(report({"--html", path}).exit_code, 1);
    }
    EXPECT_EQ(report({"--csv", "/dev/stdout"}).exit_code, 1);
    EXPECT_EQ(report({"--checkpoint", model, "--html", model + "/model.safetensors", "--overwrite"}).exit_code, 2);
    for (const std::string format : {"--html", "--csv", "--json"}) {
        const std::string path = (directory / "report").string() + format;
        EXPECT_EQ(report({format, path}).exit_code, 0) << format;
        EXPECT_EQ(report({format, path}).exit_code, 0) << "its own file, " << format;
    }
    const std::string ranks = (directory / "ranks.pth").string();
    EXPECT_EQ(calibrate(stats, {"--rank-file", ranks}).exit_code, 0);
    EXPECT_EQ(calibrate(stats, {"--rank-file", ranks}).exit_code, 0) << "its own file";
    EXPECT_EQ(read_text(notes), "the user's own");
    EXPECT_EQ(read_text(model + "/model.safetensors"), weights);
    EXPECT_EQ(calibrate(notes, {"--overwrite"}).exit_code, 0);
    EXPECT_NE(read_text(notes), "the user's own");
}

}  // namespace
}  // namespace mha2mla::test
