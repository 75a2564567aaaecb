// eval --longbench and --longbench-score: interruptions, settings, bad data.
#include <gtest/gtest.h>

#include <algorithm>

#include "support/program.hpp"
#include "support/sanitized.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

const std::string kModel = example("kjv-1.8M").string();

std::vector<std::string> eval(const fs::path& predictions, const std::vector<std::string>& more = {},
                              const fs::path& data = example("longbench")) {
    std::vector<std::string> arguments = {"eval",      kModel,      "--longbench", data,    "--predictions",
                                          predictions, "--context", "300",         "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

nlohmann::json run(const std::vector<std::string>& arguments) {
    const auto result = run_program(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out, nullptr, false);
}

void expect_refused(const std::vector<std::string>& arguments, int code, const std::vector<std::string>& needles) {
    const auto result = run_program(arguments);
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_EQ(result.out, "");
    for (const auto& needle : needles) EXPECT_NE(result.err.find(needle), std::string::npos) << result.err;
}

/// A prefix that sends `signal` to the program when a file has `lines` lines.
std::string end_at(const fs::path& file, int lines, const std::string& signal) {
    return "( until [ \"$(cat " + file.string() + " 2>/dev/null | wc -l)\" -ge " + std::to_string(lines) +
           " ]; do kill -0 $$ 2>/dev/null || exit; sleep 0.002; done; kill -" + signal + " $$ ) & exec";
}

TEST(LongbenchCli, WhereARunEndsTheNextGoesOn) {
    const TemporaryDirectory directory;
    const std::vector<std::string> tasks = {"--task", "trec,lcc"};
    const auto whole = run(eval(directory / "whole", tasks));
    EXPECT_EQ(whole.at("computed"), 6);
    const std::string trec = read_text(directory / "whole/trec.jsonl");
    const std::string lcc = read_text(directory / "whole/lcc.jsonl");

    const fs::path killed = directory / "killed";
    EXPECT_EQ(run_program(eval(killed, tasks), end_at(killed / "trec.jsonl", 2, "KILL")).exit_code, 128 + 9);
    const std::string kept = read_text(killed / "trec.jsonl");
    const auto lines = std::count(kept.begin(), kept.end(), '\n');
    ASSERT_GE(lines, 2);
    const auto rest = run(eval(killed, tasks));
    EXPECT_LE(rest.at("computed").get<std::int64_t>(), 6 - lines);
    EXPECT_EQ(read_text(killed / "trec.jsonl"), trec);
    EXPECT_EQ(read_text(killed / "lcc.jsonl"), lcc);
    EXPECT_EQ(rest.at("scores"), whole.at("scores"));
    EXPECT_EQ(rest.at("average"), whole.at("average"));

    const fs::path interrupted = directory / "interrupted";
    const auto stopped = run_program(eval(interrupted, tasks), end_at(interrupted / "trec.jsonl", 1, "INT"));
    EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
    EXPECT_NE(stopped.err.find("run the same command again"), std::string::npos) << stopped.err;
    // What a power failure can leave of a line.
    write_text(interrupted / "trec.jsonl", trec.substr(0, trec.find('\n') + 30));
    EXPECT_EQ(run(eval(interrupted, tasks)).at("computed"), 5);
    EXPECT_EQ(read_text(interrupted / "trec.jsonl"), trec);
}

TEST(LongbenchCli, PredictionsThatAreThereAreNotComputedAgain) {
    const TemporaryDirectory directory;
    const fs::path pred = directory / "pred";
    const std::vector<std::string> first = {"--task", "trec", "--max-items", "1"};
    EXPECT_EQ(run(eval(pred, first)).at("computed"), 1);
    std::string line = read_text(pred / "trec.jsonl");
    line.replace(0, line.find("\", \"answers\""), "{\"pred\": \"Person");
    write_text(pred / "trec.jsonl", line);
    const auto edited = run(eval(pred, {"--task", "trec"}));
    EXPECT_EQ(edited.at("computed"), 2);
    EXPECT_EQ(edited.at("scores")[0], 1.0);
    EXPECT_TRUE(read_text(pred / "trec.jsonl").starts_with(line));
    EXPECT_EQ(run(eval(pred, first)).at("scores"), nlohmann::json{1.0}) << "the first item alone is asked for";

    expect_refused(eval(pred, {"--task", "trec", "--kv-cache", "int4-hqq"}), 2,
                   {"kv-cache was", "int4-hqq", "--overwrite"});
    const auto again = run(eval(pred, {"--task", "trec", "--kv-cache", "int4-hqq", "--overwrite"}));
    EXPECT_EQ(again.at("computed"), 3);
    EXPECT_EQ(again.at("kv_cache_format"), "int4-hqq");
    EXPECT_FALSE(read_text(pred / "trec.jsonl").starts_with(line));

    fs::remove(pred / "longbench-settings.json");
    expect_refused(eval(pred, {"--task", "trec"}), 2, {"by another program", "--overwrite"});
}

TEST(LongbenchCli, PredictionsOfOtherItemsAreRefused) {
    const TemporaryDirectory directory;
    fs::create_directory(directory / "data");
    const std::string lines = read_text(example("longbench") / "trec.jsonl");
    write_text(directory / "data/trec.jsonl", lines);
    (void)run(eval(directory / "pred", {"--max-items", "2"}, directory / "data"));
    const std::size_t second = lines.find('\n') + 1;
    write_text(directory / "data/trec.jsonl", lines.substr(second) + lines.substr(0, second));
    expect_refused(eval(directory / "pred", {}, directory / "data"), 2, {"pred", "data/trec", "--overwrite"});
    write_text(directory / "data/trec.jsonl", lines.substr(0, second));
    expect_refused(eval(directory / "pred", {}, directory / "data"), 2, {"data/trec"});
    std::string other = lines;  // the same answers and ids
    other.replace(other.find("Who"), 3, "Why");
    write_text(directory / "data/trec.jsonl", other);
    expect_refused(eval(directory / "pred", {}, directory / "data"), 2, {"data/trec"});
    // The data are what they were, and another set has come: predictions that are there stay.
    write_text(directory / "data/trec.jsonl", lines);
    fs::copy_file(example("longbench") / "samsum.jsonl", directory / "data/samsum.jsonl");
    const auto more = run(eval(directory / "pred", {"--max-items", "2"}, directory / "data"));
    EXPECT_EQ(more.at("computed"), more.at("tasks").at("samsum").at("samples"));
    // Lines that were changed by hand.
    std::string predictions = read_text(directory / "pred/trec.jsonl");
    predictions.replace(predictions.find("kjv-trec-0"), 10, "kjv-trec-9");
    write_text(directory / "pred/trec.jsonl", predictions);
    expect_refused(eval(directory / "pred", {}, directory / "data"), 2,
                   {"pred/trec.jsonl, line 1", "item", "--overwrite"});
}

TEST(LongbenchCli, DataAreNotReplacedByPredictions) {
    const TemporaryDirectory directory;
    const fs::path data = directory / "data";
    fs::copy(example("longbench"), data);
    fs::create_directory_symlink(data, directory / "link");
    const std::string lines = read_text(data / "trec.jsonl");
    for (const char* place : {"data", "link"}) {
        expect_refused(eval(directory / place, {"--overwrite", "--task", "samsum"}, data), 2, {"holds the data"});
    }
    EXPECT_EQ(read_text(data / "trec.jsonl"), lines);
}

TEST(LongbenchCli, AFullDiskLosesNothingThatWasWritten) {
    if (kLlvmOpenMp) GTEST_SKIP() << "LLVM's OpenMP needs a larger file than the limit allows";
    const TemporaryDirectory directory;
    const fs::path pred = directory / "pred";
    fs::create_directory(directory / "data");
    fs::copy_file(example("longbench") / "passage_retrieval_en.jsonl", directory / "data/passage_retrieval_en.jsonl");
    (void)run(eval(directory / "whole", {}, directory / "data"));
    const std::string whole = read_text(directory / "whole/passage_retrieval_en.jsonl");
    // A block of 512 bytes holds the settings, but not the predictions.
    const auto result = run_program(eval(pred, {}, directory / "data"), "ulimit -f 1; trap '' XFSZ;");
    EXPECT_EQ(result.exit_code, 1) << result.err;
    EXPECT_NE(result.err.find("run the same again"), std::string::npos) << result.err;
    (void)run(eval(pred, {}, directory / "data"));
    EXPECT_EQ(read_text(pred / "passage_retrieval_en.jsonl"), whole);
}

TEST(LongbenchCli, DataThatCannotBeRunAreRefusedBeforeAnythingIsComputed) {
    const TemporaryDirectory directory;
    const fs::path data = directory / "data";
    fs::create_directory(data);
    const auto refused = [&](const std::string& task, const std::string& lines,
                             const std::vector<std::string>& needles) {
        const fs::path file = data / (task + ".jsonl");
        write_text(file, lines);
        expect_refused(eval(directory / "pred", {"--task", task}, data), 1, needles);
        EXPECT_FALSE(fs::exists(directory / "pred"));
        fs::remove(file);
    };
    const std::string good = R"({"input":"a","context":"b","answers":["c"],"length":1,"dataset":"qasper",)"
                             R"("language":"en","all_classes":null,"_id":"1"})";
    const auto changed = [&](const std::string& from, const std::string& to) {
        std::string line = good;
        return good + "\n\n" + line.replace(line.find(from), from.size(), to);
    };
    refused("qasper", "", {"qasper.jsonl", "no items"});
    refused("qasper", good + "\n{\"input\":", {"qasper.jsonl, line 2", "not a JSON object"});
    refused("qasper", good + "\n[]", {"line 2", "not a JSON object"});
    refused("qasper", changed("\"a\"", "\"\xFF\""), {"line 3", "UTF-8"});
    for (const std::string key : {"input", "context", "answers", "length", "dataset", "all_classes"}) {
        refused("qasper", changed("\"" + key + "\"", "\"x\""), {"line 3", "'" + key + "' not found", "needs the keys"});
    }
    refused("qasper", changed("[\"c\"]", "[]"), {"line 3", "'answers' is empty"});
    refused("qasper", changed("[\"c\"]", "\"c\""), {"line 3", "must be array"});
    refused("qasper", changed("[\"c\"]", "[1]"), {"line 3", "must be string"});
    refused("qasper", changed("\"qasper\"", "\"trec\""), {"line 3", "'trec'", "qasper"});
    refused("trec", changed("\"qasper\"", "\"trec\"").substr(good.size() + 2), {"line 1", "'all_classes'", "trec"});
    refused("passage_retrieval_en", changed("\"qasper\"", "\"passage_retrieval_en\"").substr(good.size() + 2),
            {"line 1", "Paragraph"});
    expect_refused(eval(directory / "pred", {}, data), 1, {"data", "no data set"});
    expect_refused(eval(directory / "pred", {"--task", "qasper"}, data), 1, {"qasper.jsonl", "cannot open"});
}

TEST(LongbenchCli, PredictionsThatCannotBeScored) {
    const TemporaryDirectory directory;
    const auto refused = [&](const std::string& lines, const std::vector<std::string>& needles,
                             const std::string& name = "mine.jsonl") {
        write_text(directory / name, lines);
        expect_refused({"eval", "--longbench-score", directory / name}, 1, needles);
    };
    const std::string good = R"({"dataset":"qasper","pred":"a","answers":["a"],"all_classes":null})";
    refused("", {"mine.jsonl", "no predictions"});
    refused(good + "\nnull", {"mine.jsonl, line 2", "not a JSON object"});
    refused(R"({"pred":"a","answers":["a"],"all_classes":null})", {"line 1", "'dataset' not found", "trec.jsonl"});
    refused(R"({"dataset":"qaspar","pred":"a","answers":["a"],"all_classes":null})",
            {"line 1", "'qaspar'", "did you mean 'qasper'"});
    refused(R"({"dataset":"qasper","answers":["a"],"all_classes":null})", {"line 1", "'pred' not found"});
    refused(R"({"dataset":"qasper","pred":1,"answers":["a"],"all_classes":null})", {"line 1", "must be string"});
    refused(R"({"dataset":"qasper","pred":"a","answers":[],"all_classes":null})", {"line 1", "'answers' is empty"});
    refused(R"({"pred":"a","answers":["a"],"all_classes":null})", {"line 1", "all_classes"}, "trec.jsonl");
    refused(R"({"pred":"1","answers":["1"],"all_classes":null})", {"line 1", "Paragraph"},
            "passage_retrieval_en.jsonl");
    // A time that is the product of both lengths.
    std::string words;
    for (int i = 0; i < 40'000; ++i) words += "a b ";
    refused(R"({"dataset":"gov_report","pred":")" + words + R"(","answers":[")" + words + R"("],"all_classes":null})",
            {"too long to compare"});
    expect_refused({"eval", "--longbench-score", directory / "absent"}, 1, {"absent", "cannot open"});
    expect_refused({"eval", "--longbench-score", example("longbench"), "--task", "lcc"}, 1, {"'pred' not found"});
}

TEST(LongbenchCli, FilesOfPredHaveTheirTaskInTheirName) {
    const TemporaryDirectory directory;
    write_text(directory / "trec.jsonl",
               R"({"pred": "\nPlace\nPerson", "answers": ["Place"], "all_classes": ["Place", "Person"], "length": 1})"
               "\n");
    write_text(directory / "qasper.jsonl",
               R"({"pred": "the dove", "answers": ["A raven", "a dove and a raven"], "all_classes": null, "length": 1})"
               "\n");
    write_text(directory / "result.json", "{}");
    const auto both = run({"eval", "--longbench-score", directory.path(), "--json"});
    EXPECT_EQ(both.at("tasks").at("trec").at("score"), 100.0);
    EXPECT_EQ(both.at("tasks").at("qasper").at("score"), 50.0);
    EXPECT_EQ(both.at("average"), 75.0);
    const auto one = run_program({"eval", "--longbench-score", directory.path(), "--task", "qasper"});
    EXPECT_NE(one.out.find("50.00"), std::string::npos) << one.out;
    EXPECT_EQ(one.out.find("trec"), std::string::npos) << one.out;
    expect_refused({"eval", "--longbench-score", directory.path(), "--task", "lcc"}, 2, {"no predictions of these"});
}

TEST(LongbenchCli, OptionsWithoutEffectAreRefused) {
    const std::string data = example("longbench");
    const std::string text = example("kjv-eval.txt");
    expect_refused({"eval"}, 2, {"model is required"});
    expect_refused({"eval", kModel, "--text", text, "--chat", "{prompt}"}, 2, {"--chat", "--longbench"});
    expect_refused({"eval", kModel, "--text", text, "--predictions", "p"}, 2, {"--predictions", "--longbench"});
    expect_refused({"eval", kModel, "--text", text, "--task", "trec"}, 2, {"--task", "--longbench"});
    expect_refused({"eval", kModel, "--text", text, "--longbench", data}, 2, {"--text", "--longbench"});
    expect_refused({"eval", kModel, "--longbench-score", data}, 2, {"model"});
    expect_refused({"eval", "--longbench-score", data, "--kv-cache", "bf16"}, 2, {"--kv-cache", "--longbench-score"});
    expect_refused({"eval", "--longbench-score", data, "--context", "9"}, 2, {"--context"});
    expect_refused({"eval", kModel, "--longbench", data, "--max-windows", "9"}, 2, {"--max-windows"});
    expect_refused({"eval", kModel, "--longbench", data, "--task", "hellaswag"}, 2, {"hellaswag", "hotpotqa"});
    expect_refused({"eval", kModel, "--longbench", data, "--task", "lsht"}, 2, {"--task", "'lsht' is not one of"});
    expect_refused({"eval", kModel, "--longbench", data, "--chat", "x"}, 2, {"--chat", "{prompt}"});
    expect_refused({"eval", kModel, "--longbench", data, "--chat", "{prompt}", "--protocol", "mha2mla"}, 2,
                   {"--chat", "--protocol longbench"});
    expect_refused({"eval", kModel, "--choices", data, "--task", "trec"}, 2, {"trec", "--choices"});
    expect_refused({"eval", kModel, "--choices", data, "--task", "piqa,arc"}, 2, {"one --task"});
}

}  // namespace
}  // namespace mha2mla::test
