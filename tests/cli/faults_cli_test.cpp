// What happens around the program: files that shrink while they are read, limits of the system, ignored signals.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>

#include "support/program.hpp"
#include "support/sanitized.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

const std::string kModel = example("kjv-1.8M").string();
const std::string kText = example("kjv-eval.txt").string();

std::vector<std::string> convert(const fs::path& model, const fs::path& out,
                                 const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"convert", model.string(), out.string(), "--rope",
                                          "uniform", "--threads",    "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

/// A prefix that stops the program when its journal has a line, makes a file shorter, and lets it go on.
std::string shorten_during(const fs::path& out, const fs::path& file) {
    return "( until [ -s '" + (out / "mha2mla.journal.jsonl").string() +
           "' ]; do kill -0 $$ 2>/dev/null || exit; sleep 0.002; done; kill -STOP $$; truncate -s 100000 '" +
           file.string() + "'; kill -CONT $$ ) & exec";
}

std::map<std::string, std::string> weights_in(const fs::path& directory) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(directory)) {
        if (entry.path().extension() == ".safetensors") files[entry.path().filename()] = read_text(entry.path());
    }
    return files;
}

TEST(ShrinkingCli, AConversionEndsWithAnErrorAndIsResumed) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out", weights = model / "model.safetensors";
    write_tiny_model(model, tiny_model_of_many_pieces());
    ASSERT_EQ(run_program(convert(model, directory / "whole")).exit_code, 0);
    fs::copy_file(weights, directory / "copy");
    const auto result = run_program(convert(model, out, {"--resume"}), shorten_during(out, weights));
    EXPECT_EQ(result.exit_code, 1) << result.out;
    EXPECT_NE(result.err.find(weights.string() + ": another program has changed it"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("pieces are kept"), std::string::npos) << result.err;
    EXPECT_FALSE(fs::exists(out / "config.json"));
    fs::copy_file(directory / "copy", weights, fs::copy_options::overwrite_existing);
    const auto resumed = run_program(convert(model, out, {"--resume"}));
    EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_EQ(weights_in(out), weights_in(directory / "whole"));
}

TEST(ShrinkingCli, ABatchGoesOnWithTheNextJob) {
    const TemporaryDirectory directory;
    write_tiny_model(directory / "a", tiny_model_of_many_pieces());
    write_tiny_model(directory / "b", {});
    write_text(directory / "recipe.json", R"({"defaults": {"rope": "uniform"}, "jobs": [
        {"source": "a", "destination": "out-a"}, {"source": "b", "destination": "out-b"}]})");
    const auto result = run_program({"batch", (directory / "recipe.json").string(), "--threads", "1"},
                                    shorten_during(directory / "out-a", directory / "a/model.safetensors"));
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find("a/model.safetensors: another program has changed it"), std::string::npos) << result.err;
    EXPECT_TRUE(fs::exists(directory / "out-b/config.json")) << result.out << result.err;
    EXPECT_FALSE(fs::exists(directory / "out-a/config.json"));
}

/// The weights are open when the prompt comes.
TEST(ShrinkingCli, GenerationEndsWithAnError) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model";
    fs::copy(kModel, model);
    const std::string weights = (model / "model.safetensors").string();
    fs::permissions(weights, fs::perms::owner_write, fs::perm_options::add);
    const auto result = run_program({"generate", model.string(), "--prompt-file", "-", "--max-new-tokens", "4"},
                                    "{ until grep -qs '" + weights + "' /proc/[0-9]*/maps; do sleep 0.02; done; " +
                                        "truncate -s 100000 '" + weights + "'; echo And God said; } |");
    EXPECT_EQ(result.exit_code, 1) << result.out;
    EXPECT_NE(result.err.find("model.safetensors: another program has changed it"), std::string::npos) << result.err;
}

/// Too little address space for something: an error at once, and one that says what to do.
TEST(LimitsCli, TooLittleAddressSpaceIsAnErrorWithinSeconds) {
    if (kSanitized) GTEST_SKIP() << "sanitizers take terabytes of address space themselves";
    const TemporaryDirectory directory;
    write_tiny_model(directory / "model", {});
    const std::vector<std::vector<std::string>> commands = {
        {"eval", kModel, "--text", kText, "--context", "64", "--max-windows", "2"},
        convert(directory / "model", directory / "out", {"--overwrite"}),
        {"calibrate", kModel, "--text", kText, "--seq-len", "64", "--samples", "2", "--overwrite", "-o",
         (directory / "stats").string()},
    };
    int succeeded = 0, failed = 0;
    for (const auto& command : commands) {
        for (const int threads : {1, 8}) {
            // Below the first of these the system cannot load the program.
            for (const int megabytes : {150, 250, 300, 400, 1000, 2000}) {
                SCOPED_TRACE(command[0] + " with " + std::to_string(threads) + " threads and " +
                             std::to_string(megabytes) + " MB");
                const auto result =
                    run_program(command, "ulimit -v " + std::to_string(megabytes * 1000) +
                                             "; OMP_NUM_THREADS=" + std::to_string(threads) + " timeout -s KILL 60");
                ASSERT_TRUE(result.exit_code == 0 || result.exit_code == 1 || result.exit_code == 127)
                    << result.exit_code << result.err;
                succeeded += result.exit_code == 0 ? 1 : 0;
                if (result.exit_code != 1) continue;
                ++failed;
                EXPECT_NE(result.err.find("emory"), std::string::npos) << result.err;
            }
        }
    }
    EXPECT_GT(succeeded, 8);
    EXPECT_GT(failed, 5);
    const auto result = run_program(commands[0], "ulimit -v 600000; OMP_NUM_THREADS=8");
    EXPECT_NE(result.err.find("--threads"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("ulimit -v"), std::string::npos) << result.err;
}

TEST(LimitsCli, AnyNumberOfThreadsIsBelievedOnlyAsFarAsItHelps) {
    if (kLlvmOpenMp) GTEST_SKIP() << "LLVM's OpenMP ends the program at numbers that it does not like";
    const std::vector<std::string> command = {"eval", kModel, "--text", kText, "--context", "64", "--max-windows", "2"};
    const auto expected = run_program(command);
    ASSERT_EQ(expected.exit_code, 0) << expected.err;
    for (const char* threads : {"100000", "2147483647", "0", "-1", "x", ""}) {
        const auto result = run_program(command, std::string("OMP_NUM_THREADS='") + threads + "' timeout -s KILL 60");
        EXPECT_EQ(result.exit_code, 0) << threads << ": " << result.err;
        EXPECT_EQ(result.out, expected.out);
    }
}

TEST(LimitsCli, AFullOrClosedOutputIsAnError) {
    const std::vector<std::vector<std::string>> commands = {
        {"eval", kModel, "--text", kText, "--context", "64", "--max-windows", "2"},
        {"inspect", kModel},
        {"plan", kModel, "--json"},
        {"doctor", kModel},
        {"generate", kModel, "--prompt", "And", "--max-new-tokens", "2"},
        {"methods"},
        {"--help"},
    };
    for (const auto& command : commands) {
        for (const char* redirection : {">/dev/full", ">&-"}) {
            // The redirection of the prefix applies to the program, which runs inside it.
            const auto result =
                run_program(command, std::string("timeout -s KILL 60 sh -c '\"$@\" ") + redirection + "' sh");
            EXPECT_EQ(result.exit_code, 1) << command[0] << redirection;
            EXPECT_NE(result.err.find("standard output"), std::string::npos) << command[0] << ": " << result.err;
        }
    }
}

/// As nohup, a supervisor or a shell that starts it in the background asks.
TEST(SignalsCli, AnIgnoredInterruptStaysIgnored) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out";
    write_tiny_model(model, tiny_model_of_many_pieces());
    const std::string interrupt = "( until [ -s '" + (out / "mha2mla.journal.jsonl").string() +
                                  "' ]; do kill -0 $$ 2>/dev/null || exit; sleep 0.002; done; kill -INT $$ ) & ";
    const auto ignored = run_program(convert(model, out, {"--resume"}), "trap '' INT; " + interrupt + "exec");
    EXPECT_EQ(ignored.exit_code, 0) << ignored.err;
    fs::remove_all(out);
    const auto interrupted = run_program(convert(model, out, {"--resume"}), interrupt + "exec");
    EXPECT_EQ(interrupted.exit_code, 130) << interrupted.err;
}

bool is_clean(const std::string& text) {
    // Of the control characters only line breaks; of C1 and the marks of direction none, here as bytes of UTF-8.
    const auto control = [](unsigned char c) { return (c < 0x20 && c != '\n') || c == 0x7F; };
    return std::none_of(text.begin(), text.end(), control) && text.find("\xc2\x9b") == std::string::npos &&
           text.find("\xe2\x80\xae") == std::string::npos;
}

TEST(HostileTextCli, NothingFromFilesOrArgumentsIsObeyed) {
    const std::string evil = "x\x1b[2J\n# h\r\x07\xc2\x9b\x33m\xe2\x80\xae</script>`";
    const TemporaryDirectory directory;
    const fs::path model = directory / ("m" + std::string("\x1b[31m\xe2\x80\xae"));
    auto tensors = tiny_tensors({});
    tensors.push_back({evil, "F32", {1}, {1}});
    auto config = tiny_config({});
    config["_name_or_path"] = "a/" + evil;
    write_model(model, config, tensors);
    write_text(model / "README.md", "---\nlicense: mit\nlicense_name: \x1b[31m # </script>\nlanguage: &x en\n---\n");
    write_text(
        directory / "recipe.json",
        nlohmann::json({{"jobs", {{{"source", model.string()}, {"rope", "uniform"}, {"destination", "o" + evil}}}}})
            .dump());
    const fs::path out = directory / "out";
    const std::vector<std::vector<std::string>> commands = {
        {"inspect", model.string()},
        {"inspect", model.string(), "--json"},
        {"doctor", model.string()},
        {"doctor", model.string(), "--json", "--deep"},
        {"plan", model.string()},
        {"convert", model.string(), out.string(), "--rope", "uniform"},
        {"convert", model.string(), out.string(), "--rope", "uniform", "--ignore-unused"},
        {"batch", (directory / "recipe.json").string(), "--dry-run"},
        {"batch", (directory / "recipe.json").string(), "--json"},
        {"batch", (directory / "recipe.json").string()},
        {"inspect", directory.path().string() + "/" + evil},
        {evil},
        {"inspect", "--" + evil},
        {"inspect", model.string(), evil},
        {"eval", model.string(), "--context", evil, "--text", evil},
        {"eval", model.string(), "--text", "x", "--tokenizer", evil, "--log-format", "json"},
        {"eval", model.string(), "--tokens", evil},
        {"convert", model.string(), "o", "--kv-balance", evil},
    };
    for (const auto& command : commands) {
        const auto result = run_program(command);
        EXPECT_TRUE(is_clean(result.out)) << command[0] << ": " << result.out;
        EXPECT_TRUE(is_clean(result.err)) << command[0] << ": " << result.err;
    }
    const std::string card = read_text(out / "README.md");
    EXPECT_TRUE(is_clean(card)) << card;
    EXPECT_EQ(card.find("\n# h"), std::string::npos) << card;
    EXPECT_NE(card.find("license: mit\nlicense_name: \"?[31m # </script>\"\n---"), std::string::npos) << card;
}

TEST(HostileTextCli, MessagesAreShort) {
    const TemporaryDirectory directory;
    auto config = tiny_config({});
    config["hidden_size"] = std::vector<int>(1'000'000, 1);
    write_model(directory / "model", config, tiny_tensors({}));
    write_tiny_model(directory / "good", {});
    write_text(directory / "ids.jsonl", "{\"input_ids\": [\"" + std::string(3'000'000, 'x') + "\"]}\n");
    for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
             {"inspect", (directory / "model").string()},
             {"eval", (directory / "good").string(), "--tokens", (directory / "ids.jsonl").string()},
             {"eval", (directory / "good").string(), "--tokens", std::string(100'000, 'y')},
             {std::string(100'000, 'z')},
         }) {
        const auto result = run_program(command);
        EXPECT_NE(result.exit_code, 0);
        EXPECT_LT(result.err.size(), 9000U) << command[0].substr(0, 20);
    }
}

TEST(EvaluationCli, AnUnusableEvaluationTextIsKnownBeforeTheConversion) {
    const TemporaryDirectory directory;
    write_text(directory / "short.txt", "And");
    write_text(directory / "latin.txt", "And \xe9 " + std::string(5000, 'x'));
    const std::string out = (directory / "out").string();
    for (const std::string text : {"missing.txt", "short.txt", "latin.txt"}) {
        for (const bool dry : {false, true}) {
            std::vector<std::string> command = {
                "convert", kModel, out, "--rope", "uniform", "--eval-text", (directory / text).string()};
            if (dry) command.emplace_back("--dry-run");
            const auto result = run_program(command);
            EXPECT_NE(result.exit_code, 0) << text;
            EXPECT_FALSE(fs::exists(out)) << text << result.err;
        }
    }
}

}  // namespace
}  // namespace mha2mla::test
