// Running recipes, and the model cards of their outputs.
#include <algorithm>

#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;
const std::string kModel = example("kjv-1.8M").string();
const std::string kText = example("kjv-eval.txt").string();

/// Two settings of one model, calibrated on the same text.
std::string recipe_of_two() {
    return R"({"defaults": {"source": ")" + kModel + R"(", "calibration-text": ")" + kText +
           R"(", "samples": 4, "seq-len": 64, "method": "mha2mla"},
        "jobs": [{"grid": {"kv-rank": [8, 16]}}]})";
}

nlohmann::json states(const nlohmann::json& summary) {
    auto list = nlohmann::json::array();
    for (const auto& job : summary.at("jobs")) list.push_back(job.at("state"));
    return list;
}

TEST(BatchCli, JobsShareStatisticsAndRunOnce) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json", out = directory / "out";
    write_text(recipe, recipe_of_two());
    const auto plan = run_program({"batch", recipe.string(), "--dry-run"});
    EXPECT_EQ(plan.exit_code, 0) << plan.err;
    EXPECT_EQ(plan.out.find("calibrates"), plan.out.rfind("calibrates")) << "only the first\n" << plan.out;
    EXPECT_NE(plan.out.find("free in"), std::string::npos) << plan.out;
    EXPECT_FALSE(fs::exists(out));

    const auto first = run_program({"batch", recipe.string()});
    ASSERT_EQ(first.exit_code, 0) << first.err;
    EXPECT_EQ(states(read_json(out / "summary.json")), (nlohmann::json{"done", "done"}));
    const auto count = std::count_if(fs::directory_iterator(out / "statistics"), fs::directory_iterator(),
                                     [](const auto& entry) { return entry.path().extension() == ".safetensors"; });
    EXPECT_EQ(count, 1);
    const auto direct = directory / "direct";
    ASSERT_EQ(run_program({"convert", kModel, direct.string(), "--calibration-text", kText, "--samples", "4",
                           "--seq-len", "64", "--kv-rank", "8", "--method", "mha2mla"})
                  .exit_code,
              0);
    EXPECT_EQ(read_text(direct / "model.safetensors"), read_text(out / "kjv-1.8M-mla-kv-rank-8/model.safetensors"));

    ASSERT_EQ(run_program({"batch", recipe.string()}).exit_code, 0);
    EXPECT_EQ(states(read_json(out / "summary.json")), (nlohmann::json{"skipped", "skipped"}));

    // If a file of an output is missing, only its job runs again.
    fs::remove(out / "kjv-1.8M-mla-kv-rank-8/model.safetensors");
    const auto partly = run_program({"batch", recipe.string(), "--overwrite"});
    EXPECT_EQ(partly.exit_code, 0) << partly.err;
    EXPECT_EQ(states(read_json(out / "summary.json")), (nlohmann::json{"done", "skipped"}));
}

TEST(BatchCli, AFailingJobDoesNotStopTheOthers) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json";
    write_text(recipe, R"({"defaults": {"rope": "uniform"},
        "jobs": [{"source": "missing"}, {"source": ")" +
                           kModel + R"(", "kv-rank": 1000, "destination": "out/impossible"},
                 {"source": ")" +
                           kModel + R"("}]})");
    const auto result = run_program({"batch", recipe.string(), "--json"});
    EXPECT_EQ(result.exit_code, 1);
    const auto summary = nlohmann::json::parse(result.out);
    EXPECT_EQ(states(summary), (nlohmann::json{"failed", "failed", "done"}));
    EXPECT_NE(summary.at("jobs")[0].at("error").get<std::string>().find("missing"), std::string::npos);
    EXPECT_NE(summary.at("jobs")[1].at("error").get<std::string>().find("kv-rank 1000"), std::string::npos);
    EXPECT_EQ(summary, read_json(directory / "out/summary.json"));
}

TEST(BatchCli, ChangedSettingsDoNotReplaceAnOutputUnasked) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json";
    const auto with_rank = [&](int rank) {
        write_text(recipe, R"({"jobs": [{"rope": "high", "kv-rank": )" + std::to_string(rank) + R"(, "source": ")" +
                               kModel + R"("}]})");
    };
    with_rank(8);
    ASSERT_EQ(run_program({"batch", recipe.string()}).exit_code, 0);
    with_rank(16);
    const auto refused = run_program({"batch", recipe.string()});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(refused.out.find("kv-rank was 8 and is 16"), std::string::npos) << refused.out;
    ASSERT_EQ(run_program({"batch", recipe.string(), "--overwrite"}).exit_code, 0);
    EXPECT_EQ(read_json(directory / "out/kjv-1.8M-mla/config.json").at("mha2mla").at("kv_rank"), 16);
}

TEST(BatchCli, SharesTogetherAreTheWhole) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json";
    write_text(recipe,
               R"({"jobs": [{"rope": "high", "source": ")" + kModel + R"(", "grid": {"kv-rank": [4, 8, 12]}}]})");
    for (const char* share : {"1/2", "2/2"}) {
        ASSERT_EQ(run_program({"batch", recipe.string(), "--shard", share}).exit_code, 0);
    }
    EXPECT_EQ(read_json(directory / "out/summary-1-of-2.json").at("done"), 2);
    EXPECT_EQ(read_json(directory / "out/summary-2-of-2.json").at("done"), 1);
    const auto all = run_program({"batch", recipe.string(), "--json"});
    EXPECT_EQ(nlohmann::json::parse(all.out).at("skipped"), 3);
}

TEST(BatchCli, MistakesInTheRecipeRunNothing) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json";
    write_text(recipe, R"({"jobs": [{"source": "a", "overwrite": true}]})");
    const auto result = run_program({"batch", recipe.string()});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find("unknown key 'overwrite'"), std::string::npos) << result.err;
    EXPECT_EQ(result.out, "");
}

/// The original, and a conversion that is fine-tuned for two steps; both evaluated on text and on multiple choice.
std::string recipe_with_stages() {
    return R"({"defaults": {"source": ")" + kModel + R"(",
            "evaluate": [{"text": "eval.txt", "context": 64, "max-windows": 4}, {"choices": "q.jsonl"}]},
        "jobs": [{"convert": false},
                 {"method": "mha2mla", "rope": "uniform", "rope-dim": 8, "kv-rank": 16,
                  "finetune": {"text": ")" +
           kText + R"(", "teacher": "${source}", "seq-len": 64, "batch": 2, "steps": 2}}]})";
}

TEST(BatchCli, FineTunesAndEvaluatesEveryJobOnce) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json", out = directory / "out";
    write_text(recipe, recipe_with_stages());
    const auto missing = run_program({"batch", recipe.string(), "--dry-run"});
    EXPECT_EQ(missing.exit_code, 1);
    EXPECT_NE(missing.out.find("eval.txt"), std::string::npos) << missing.out;
    write_text(directory / "eval.txt", read_text(kText).substr(0, 4000));
    write_text(directory / "q.jsonl", R"({"query":"And God","choices":[" said"," whale"],"gold":0})");
    const auto plan = run_program({"batch", recipe.string(), "--dry-run"});
    EXPECT_EQ(plan.exit_code, 0) << plan.err;
    EXPECT_NE(plan.out.find("then fine-tuned and evaluated 2 times"), std::string::npos) << plan.out;
    EXPECT_FALSE(fs::exists(out));

    const auto first = run_program({"batch", recipe.string()});
    ASSERT_EQ(first.exit_code, 0) << first.err;
    EXPECT_NE(first.out.find("eval nll"), std::string::npos) << first.out;
    const auto summary = read_json(out / "summary.json");
    EXPECT_EQ(states(summary), (nlohmann::json{"done", "done"}));
    const auto& original = summary.at("jobs")[0];
    const auto& trained = summary.at("jobs")[1];
    EXPECT_FALSE(original.contains("finetuned"));
    EXPECT_EQ(trained.at("finetuned").at("steps"), 2);
    // The same as by hand.
    const auto nll = [&](const fs::path& model) {
        const auto result = run_program(
            {"eval", model, "--text", directory / "eval.txt", "--context", "64", "--max-windows", "4", "--json"});
        EXPECT_EQ(result.exit_code, 0) << result.err;
        return nlohmann::json::parse(result.out).at("nll");
    };
    EXPECT_EQ(original.at("evaluations").at("eval").at("nll"), nll(kModel));
    EXPECT_EQ(trained.at("evaluations").at("eval").at("nll"), nll(out / "kjv-1.8M-mla-ft"));
    EXPECT_EQ(original.at("evaluations").at("q").at("accuracy"), 1);

    ASSERT_EQ(run_program({"batch", recipe.string()}).exit_code, 0);
    auto again = read_json(out / "summary.json");
    EXPECT_EQ(states(again), (nlohmann::json{"skipped", "skipped"}));
    EXPECT_EQ(again.at("jobs")[1].at("evaluations"), trained.at("evaluations"));

    // Another text is another evaluation, and nothing else is done again.
    write_text(directory / "eval.txt", read_text(kText).substr(4000, 4000));
    ASSERT_EQ(run_program({"batch", recipe.string()}).exit_code, 0);
    again = read_json(out / "summary.json");
    EXPECT_EQ(states(again), (nlohmann::json{"done", "done"}));
    EXPECT_NE(again.at("jobs")[1].at("evaluations").at("eval"), trained.at("evaluations").at("eval"));
    EXPECT_EQ(again.at("jobs")[1].at("finetuned"), trained.at("finetuned"));
}

TEST(BatchCli, ResultsThatNoEvaluationWroteAreNotBelieved) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json", file = directory / "out/evaluations/kjv-1.8M/kjv-eval.json";
    write_text(recipe, R"({"jobs": [{"source": ")" + kModel + R"(", "convert": false, "evaluate": [{"text": ")" +
                           kText + R"(", "context": 64, "max-windows": 2}]}]})");
    ASSERT_EQ(run_program({"batch", recipe.string()}).exit_code, 0);
    const std::string written = read_text(file);
    for (const char* result : {"null", "3", "[]", "{}", R"({"nll": "low"})", R"({"normalized": {}})",
                               R"({"normalized": [1]})", R"({"average": null})"}) {
        auto changed = nlohmann::ordered_json::parse(written);
        changed["result"] = nlohmann::ordered_json::parse(result);
        write_text(file, changed.dump());
        const auto again = run_program({"batch", recipe.string()});
        EXPECT_EQ(again.exit_code, 0) << result << again.err;
        EXPECT_EQ(read_text(file), written) << result;
    }
}

/// Before the conversion, which takes hours.
TEST(BatchCli, WhatCannotBeWrittenIsSaidBeforeAnyWork) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json", out = directory / "out";
    write_text(recipe, R"({"jobs": [{"source": ")" + kModel + R"(", "method": "mha2mla", "rope": "high", "kv-rank": 8,
        "finetune": {"text": ")" +
                           kText + R"(", "seq-len": 64, "batch": 1, "steps": 1},
        "evaluate": [{"text": ")" +
                           kText + R"(", "context": 64, "max-windows": 2}]}]})");
    const auto expect_refused = [&](const std::string& part) {
        const auto refused = run_program({"batch", recipe.string()});
        EXPECT_EQ(refused.exit_code, 1) << part;
        EXPECT_NE((refused.out + refused.err).find(part), std::string::npos) << refused.out << refused.err;
        EXPECT_FALSE(fs::exists(out / "kjv-1.8M-mla")) << part;
    };
    fs::create_directories(out / "kjv-1.8M-mla-ft");
    write_text(out / "kjv-1.8M-mla-ft/thesis.txt", "mine");
    expect_refused("kjv-1.8M-mla-ft");
    fs::remove_all(out);
    fs::create_directories(out / "evaluations/kjv-1.8M-mla/kjv-eval.json");
    expect_refused("it is no file");
    fs::remove_all(out);
    fs::create_directories(out);
    write_text(out / "summary.json", R"({"of": "my own work"})");
    expect_refused("is not of this command");
    EXPECT_EQ(read_text(out / "summary.json"), R"({"of": "my own work"})");
    fs::remove_all(out);
    ASSERT_EQ(run_program({"batch", recipe.string()}).exit_code, 0);
}

/// The recipes of the paper's experiments with a small model in the place of each of theirs, and an item of each task.
TEST(BatchCli, TheRecipesOfThePaperRun) {
    const TemporaryDirectory directory;
    for (const char* name : {"SmolLM-135M", "SmolLM-360M", "SmolLM-1.7B", "Llama-2-7b-hf"}) {
        fs::create_directories(directory / "models");
        fs::create_directory_symlink(fs::absolute(kModel), directory / "models" / name);
    }
    const std::map<std::string, std::string> items = {
        {"arc", R"({"question":"Why?","choices":{"text":["x","y"],"label":["1","2"]},"answerKey":"2"})"},
        {"hellaswag", R"({"activity_label":"Baking","ctx_a":"A man.","ctx_b":"He","endings":["a.","b."],"label":"1"})"},
        {"mmlu", R"({"subject":"physics","question":"g?","choices":["1","9.8"],"answer":1})"},
        {"openbookqa", R"({"question_stem":"The sun","choices":{"text":["x","y"],"label":["A","B"]},"answerKey":"B"})"},
        {"piqa", R"({"goal":"Open it","sol1":"Push","sol2":"Pull","label":0})"},
        {"winogrande", R"({"sentence":"Ann saw _ go.","option1":"Bo","option2":"Cy","answer":"2"})"}};
    fs::create_directories(directory / "data");
    for (const auto& [name, line] : items) write_text(directory / "data" / (name + ".jsonl"), line + "\n");
    write_text(directory / "data/corpus.jsonl",
               nlohmann::json{{"text", read_text(kText).substr(0, 50'000)}}.dump() + "\n");
    const std::map<std::string, std::size_t> jobs = {{"commonsense", 16}, {"ablation", 18}, {"longbench", 1}};
    for (const auto& [name, count] : jobs) {
        fs::copy_file(example("recipes/" + name + ".json"), directory / (name + ".json"));
        std::vector<std::string> command = {
            "batch", directory / (name + ".json"), "--set", "steps=2", "--set", "batch=1", "--set", "seq-len=64",
            "--json"};
        if (name == "longbench") {
            command.insert(command.end(), {"--set", "longbench=" + fs::absolute(example("longbench")).string(), "--set",
                                           "max-items=1", "--set", "context=700", "--shard", "2/4"});
        }
        const auto result = run_program(command);
        ASSERT_EQ(result.exit_code, 0) << result.err;
        const auto summary = nlohmann::json::parse(result.out);
        EXPECT_EQ(summary.at("jobs").size(), count);
        EXPECT_EQ(summary.at("done"), count);
        for (const auto& job : summary.at("jobs")) {
            EXPECT_EQ(job.at("evaluations").size(), name == "longbench" ? 5U : 6U) << job;
        }
    }
    const auto wrong = run_program({"batch", directory / "ablation.json", "--set", "step=1", "--dry-run"});
    EXPECT_EQ(wrong.exit_code, 2);
    EXPECT_NE(wrong.err.find("did you mean 'steps'?"), std::string::npos) << wrong.err;
}

TEST(BatchCli, OtherTrainingNeedsLeaveToReplaceWhatWasTrained) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json";
    const auto write = [&](int steps) {
        write_text(recipe, R"({"jobs": [{"source": ")" + kModel + R"(", "convert": false, "finetune": {"text": ")" +
                               kText + R"(", "seq-len": 64, "batch": 1, "steps": )" + std::to_string(steps) + "}}]}");
    };
    write(1);
    ASSERT_EQ(run_program({"batch", recipe.string()}).exit_code, 0);
    write(2);
    const auto refused = run_program({"batch", recipe.string()});
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_NE(refused.err.find("--overwrite"), std::string::npos) << refused.err;
    ASSERT_EQ(run_program({"batch", recipe.string(), "--overwrite"}).exit_code, 0);
    EXPECT_EQ(read_json(directory / "out/summary.json").at("jobs")[0].at("finetuned").at("steps"), 2);
}

TEST(BatchCli, AnInterruptEndsWith130AndTheSameCommandGoesOn) {
    const TemporaryDirectory directory;
    const auto recipe = directory / "recipe.json";
    write_text(recipe, R"({"jobs": [{"source": ")" + kModel + R"(", "calibration-text": ")" +
                           example("kjv-calibration.txt").string() + R"(", "method": "mha2mla", "samples": 100000}]})");
    const auto result = run_program({"batch", recipe.string()}, "timeout --foreground --preserve-status -s INT 1");
    EXPECT_EQ(result.exit_code, 130) << result.err;
    EXPECT_NE(result.err.find("same command again"), std::string::npos) << result.err;
    EXPECT_EQ(states(read_json(directory / "out/summary.json")), nlohmann::json{"not run"});
}

TEST(RecipeCli, APrintedRecipeMakesTheSameOutput) {
    const TemporaryDirectory directory;
    const auto printed = run_program({"convert", kModel, (directory / "a").string(), "--rope", "high", "--kv-rank", "8",
                                      "--svd", "split", "--dtype", "f32", "--print-recipe"});
    ASSERT_EQ(printed.exit_code, 0) << printed.err;
    EXPECT_FALSE(fs::exists(directory / "a"));
    write_text(directory / "recipe.json", printed.out);
    ASSERT_EQ(run_program({"batch", (directory / "recipe.json").string()}).exit_code, 0);
    ASSERT_EQ(run_program({"convert", kModel, (directory / "b").string(), "--rope", "high", "--kv-rank", "8", "--svd",
                           "split", "--dtype", "f32"})
                  .exit_code,
              0);
    EXPECT_EQ(read_text(directory / "a/model.safetensors"), read_text(directory / "b/model.safetensors"));
}

TEST(RecipeCli, ADollarSignInAPathSurvives) {
    const TemporaryDirectory directory;
    const fs::path out = directory / "a $$ ${b}";
    const auto printed = run_program({"convert", kModel, out.string(), "--rope", "high", "--print-recipe"});
    ASSERT_EQ(printed.exit_code, 0) << printed.err;
    write_text(directory / "recipe.json", printed.out);
    const auto run = run_program({"batch", (directory / "recipe.json").string()});
    ASSERT_EQ(run.exit_code, 0) << run.err;
    EXPECT_TRUE(fs::exists(out / "config.json"));
    EXPECT_NE(read_text(out / "README.md").find("mha2mla convert kjv-1.8M 'a $$ ${b}' --rope high"), std::string::npos);
}

TEST(CardCli, KnowsAModelInTheCacheOfTheHub) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "models--bible--kjv-1.8M/snapshots/0123abcd";
    fs::create_directories(model.parent_path());
    fs::copy(kModel, model);
    ASSERT_EQ(run_program({"convert", model.string(), (directory / "out").string(), "--rope", "high"}).exit_code, 0);
    EXPECT_EQ(read_json(directory / "out/mha2mla.json").at("base_model"), "bible/kjv-1.8M");
}

TEST(CardCli, SaysWhatWasDoneMeasuredAndLeftOut) {
    const TemporaryDirectory directory;
    const fs::path model = directory / "model", out = directory / "out";
    fs::copy(kModel, model);
    write_text(model / "README.md", "---\nlicense: apache-2.0\ntags:\n- bible\n---\n# KJV\n");
    write_text(model / "LICENSE", "as is");
    write_text(model / "chat_template.jinja", "{{ x }}");
    write_text(model / "pytorch_model.bin", "weights");
    fs::create_directory(model / "onnx");
    const auto result = run_program({"convert", model.string(), out.string(), "--rope", "uniform", "--eval-text", kText,
                                     "--eval-context", "128", "--eval-max-windows", "4"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const std::string card = read_text(out / "README.md");
    for (const char* needle : {"base_model: \"model\"", "license: apache-2.0", "library_name: mha2mla", "- mla",
                               "mha2mla convert", "\"rope\": \"uniform\"", "| KV cache", "-68.75%", "| NLL",
                               "`pytorch_model.bin`", "`onnx`", "mha2mla verify"}) {
        EXPECT_NE(card.find(needle), std::string::npos) << needle << "\n" << card;
    }
    EXPECT_NE(card.find("mha2mla convert model out --rope uniform --eval-text kjv-eval.txt"), std::string::npos)
        << card;
    const auto record = read_json(out / "mha2mla.json");
    // Published files do not contain local paths.
    for (const auto& text : {card, record.dump()}) EXPECT_EQ(text.find(directory.path().string()), std::string::npos);
    const auto verified = run_program(
        {"verify", model.string(), out.string(), "--text", kText, "--context", "128", "--max-windows", "4", "--json"});
    EXPECT_EQ(record.at("measured").at("nll_converted"), nlohmann::json::parse(verified.out).at("nll_converted"));
    for (const auto& [name, file] : record.at("files").items()) {
        EXPECT_EQ(file.at("bytes"), fs::file_size(out / name)) << name;
        const bool weights = name == "model.safetensors";
        EXPECT_EQ(file.contains("tensors"), weights) << name;
        EXPECT_EQ(file.contains("xxh128"), !weights) << name;
    }
    for (const char* name : {"LICENSE", "chat_template.jinja", "tokenizer.json", "config.json", "model.safetensors"}) {
        EXPECT_TRUE(record.at("files").contains(name)) << name;
    }
    EXPECT_EQ(read_text(out / "LICENSE"), "as is");
    EXPECT_FALSE(fs::exists(out / "pytorch_model.bin"));
}

}  // namespace
}  // namespace mha2mla::test
