#include "mha2mla/batch.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/shard.hpp"
#include "support/expect_error.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

const RecipeSettings kSettings = {
    .convert = {{"rope", false}, {"rope-dim", false}, {"stats", true}},
    .finetune = {{"text", true}, {"teacher", true}, {"steps", false}},
    .evaluate = {{"text", true}, {"choices", true}, {"task", false}, {"kv-cache", false}}};

Recipe read(const TemporaryDirectory& directory, const std::string& text) {
    write_text(directory / "recipe.json", text);
    return read_recipe(directory / "recipe.json", kSettings);
}

void expect_refused(const std::string& text, const std::vector<std::string_view>& needles,
                    const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const TemporaryDirectory directory;
    auto all = needles;
    all.emplace_back("recipe.json");
    expect_error(
        ErrorCode::format, all, [&] { (void)read(directory, text); }, file, line);
}

TEST(Recipe, GridsDefaultsAndVariablesGiveEveryCombinationOnce) {
    const TemporaryDirectory directory;
    const Recipe recipe = read(directory, R"({
        "variables": {"models": "my/${kind}", "kind": "llamas", "dim": 8},
        "defaults": {"rope": "uniform", "stats": "s.safetensors"},
        "output": "results",
        "jobs": [{"grid": {"source": ["${models}/a", "${models}/b"], "rope-dim": [4, "${dim}"]}},
                 {"source": "/abs/c", "rope": "high", "destination": "${output}/x-${source-name}-${rope}"}]})");
    ASSERT_EQ(recipe.jobs.size(), 5U);
    EXPECT_EQ(recipe.output, directory / "results");
    EXPECT_EQ(recipe.jobs[0].source, directory / "my/llamas/a");
    EXPECT_EQ(recipe.jobs[1].name, "a-mla-rope-dim-8");
    EXPECT_EQ(recipe.jobs[1].settings.at("rope-dim"), 8) << "a lone reference keeps the variable's type";
    EXPECT_EQ(recipe.jobs[2].source, directory / "my/llamas/b");
    EXPECT_EQ(recipe.jobs[2].destination, directory / "results/b-mla-rope-dim-4");
    EXPECT_EQ(recipe.jobs[2].settings.at("stats"), (directory / "s.safetensors").string());
    EXPECT_EQ(recipe.jobs[2].settings.at("rope"), "uniform");
    EXPECT_EQ(recipe.jobs[4].destination, directory / "results/x-c-high");
    EXPECT_EQ(recipe.jobs[4].source, "/abs/c");
}

TEST(Recipe, MistakesAreNamedWithTheirPlace) {
    expect_refused(R"({"job": []})", {"'job'", "jobs"});
    expect_refused(R"({"jobs": []})", {"at least one"});
    expect_refused(R"({"jobs": [{"source": "a"}, {"source": "b", "rope_dim": 4}]})",
                   {"job 2", "'rope_dim'", "rope-dim"});
    expect_refused(R"({"jobs": [{"source": "a"}], "defaults": {"ropes": "high"}})", {"defaults", "'ropes'"});
    expect_refused(R"({"jobs": [{"rope": "high"}]})", {"job 1", "no source"});
    expect_refused(R"({"jobs": [{"source": "a", "stts": "b"}]})", {"did you mean 'stats'?"});
    expect_refused(R"({"jobs": [{"source": "a", "rope": "low", "rope": "high"}]})", {"\"rope\" appears twice"});
    expect_refused(R"({"jobs": [{"source": "a", "rope": ["high"]}]})", {"job 1, rope", "string"});
    expect_refused(R"({"jobs": [{"source": "a", "grid": {"rope": []}}]})", {"job 1, grid", "'rope'"});
    expect_refused(R"({"jobs": [{"source": "a", "grid": {"speed": [1]}}]})", {"grid", "'speed'"});
    expect_refused(R"({"jobs": [{"source": "${nowhere}/a"}]})", {"'nowhere'", "output"});
    expect_refused(R"({"jobs": [{"source": "${open"}]})", {"${open", "$$"});
    expect_refused(R"({"variables": {"a": "${b}/x", "b": "${c}", "c": "-${a}"}, "jobs": [{"source": "s"}]})",
                   {"circle", "b -> c -> a -> b"});
    expect_refused(R"({"jobs": [{"source": "a", "destination": "o"}, {"source": "b", "destination": "./x/../o"}]})",
                   {"two jobs", "/o", "a", "b"});
    expect_refused("[1", {"not valid JSON"});
    expect_refused(R"([1])", {"must be an object"});
    std::string many = "1";
    for (int i = 2; i < 102; ++i) many += "," + std::to_string(i);
    expect_refused(R"({"jobs": [{"grid": {"rope": [)" + many + R"(], "rope-dim": [)" + many + "]}}]}", {"10000"});
    const std::string long_text(50'000, 'x');
    expect_refused(R"({"jobs": [{"source": "a", "stats": ")" + long_text + R"(", "grid": {"rope": [)" + many +
                       R"(], "rope-dim": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]}}]})",
                   {"bytes of settings"});
}

TEST(Recipe, FineTuningAndEvaluationsAreReadForEveryJob) {
    const TemporaryDirectory directory;
    const Recipe recipe = read(directory, R"({
        "defaults": {"finetune": {"text": ["a.txt", "/abs/b.txt"], "teacher": "${source}", "steps": 3},
                     "evaluate": [{"text": "wiki.txt"}, {"choices": "x.jsonl", "task": "${t}"},
                                  {"text": "wiki.txt", "kv-cache": "int4"}, {"name": "again", "text": "wiki.txt"}]},
        "variables": {"t": "piqa"},
        "jobs": [{"source": "m", "rope": "high", "grid": {"rope-dim": [4, 8]}},
                 {"source": "m", "convert": false, "finetune": null}]})");
    ASSERT_EQ(recipe.jobs.size(), 3U);
    const BatchJob& first = recipe.jobs[0];
    EXPECT_TRUE(first.converts);
    EXPECT_EQ(first.finetune.at("text"), (nlohmann::ordered_json{(directory / "a.txt").string(), "/abs/b.txt"}));
    EXPECT_EQ(first.finetune.at("teacher"), (directory / "m").string());
    EXPECT_EQ(first.finetune.at("steps"), 3);
    EXPECT_EQ(first.converted(), directory / "out/m-mla-rope-dim-4");
    EXPECT_EQ(first.result(), directory / "out/m-mla-rope-dim-4-ft");
    std::vector<std::string> names;
    for (const auto& evaluation : first.evaluations) names.push_back(evaluation.name);
    EXPECT_EQ(names, (std::vector<std::string>{"wiki", "piqa", "wiki-int4", "again"}));
    EXPECT_EQ(first.evaluations[1].settings.at("choices"), (directory / "x.jsonl").string());
    EXPECT_FALSE(first.evaluations[3].settings.contains("name"));
    const BatchJob& original = recipe.jobs[2];
    EXPECT_FALSE(original.converts);
    EXPECT_EQ(original.name, "m");
    EXPECT_EQ(original.result(), directory / "m");
    EXPECT_EQ(original.evaluations.size(), 4U);
}

TEST(Recipe, MistakesInFineTuningAndEvaluationsAreNamed) {
    const auto refused = [](const std::string& job, const std::vector<std::string_view>& needles) {
        expect_refused(R"({"jobs": [{"source": "a", )" + job + "}]}", needles);
    };
    refused(R"("finetune": {"txt": "b"})", {"job 1, finetune", "'txt'", "did you mean 'text'?"});
    refused(R"("finetune": {"steps": [[1]]})", {"finetune, steps", "string"});
    refused(R"("finetune": [])", {"finetune", "object"});
    refused(R"("evaluate": {})", {"evaluate", "list"});
    refused(R"("evaluate": [{"text": "w.txt"}, {"texts": "w.txt"}])", {"evaluation 2", "'texts'"});
    refused(R"("evaluate": [{"text": "a/w.txt"}, {"text": "b/w.txt"}])", {"evaluation 2", "'w'", "name"});
    refused(R"("evaluate": [{"text": "w.txt", "name": "../w"}])", {"evaluation 1", "name"});
    refused(R"("evaluate": [{}])", {"evaluation 1", "name"});
    refused(R"("convert": "no")", {"convert", "true or false"});
    refused(R"("convert": false)", {"job 1", "does nothing"});
    refused(R"("convert": false, "evaluate": [{"text": "w.txt"}], "grid": {"rope": ["high"]})", {"grid", "'rope'"});
    expect_refused(R"({"defaults": {"evaluate": [{"text": "w.txt"}]},
                       "jobs": [{"source": "a", "destination": "x/o"}, {"source": "a", "destination": "y/o"}]})",
                   {"two jobs", "'o'"});
    expect_refused(R"({"jobs": [{"source": "a", "destination": "o", "finetune": {"text": "t"}},
                                {"source": "b", "destination": "o-ft"}]})",
                   {"two jobs", "o-ft"});
}

TEST(Recipe, AnEvaluationIsKeptUntilItsInputChanges) {
    const TemporaryDirectory directory;
    const auto file = directory / "job/wiki.json";
    const nlohmann::ordered_json fingerprint = {{"model", "x"}}, result = {{"nll", 2.5}};
    EXPECT_TRUE(saved_evaluation(file, fingerprint).is_null());
    save_evaluation(file, fingerprint, result);
    EXPECT_EQ(saved_evaluation(file, fingerprint), result);
    EXPECT_TRUE(saved_evaluation(file, {{"model", "y"}}).is_null());
    for (const char* damaged : {"", "[", "[]", "{\"result\": 1}"}) {
        write_text(file, damaged);
        EXPECT_TRUE(saved_evaluation(file, fingerprint).is_null()) << damaged;
    }
}

TEST(Recipe, VariablesAreBounded) {
    const auto chain = [](int length, const std::string& text) {
        std::string variables;
        for (int i = 0; i < length; ++i) {
            std::string value;
            for (const char c : text) value += c == '@' ? "${v" + std::to_string(i + 1) + "}" : std::string(1, c);
            variables += "\"v" + std::to_string(i) + "\": \"" + value + "\", ";
        }
        return R"({"variables": {)" + variables + "\"v" + std::to_string(length) +
               R"(": ""}, "jobs": [{"source": "${v0}"}]})";
    };
    expect_refused(chain(7000, "@"), {"v", "64"});
    expect_refused(chain(25, "@@"), {"1000"});  // to nothing, but in 2^25 steps
    expect_refused(chain(60, "@@x"), {"variable"});
    expect_refused(chain(3, "@" + std::string(40'000, 'x') + "@"), {"65536"});
    Variables variables("r.json");
    variables.set("a", "x");
    EXPECT_EQ(variables.expand(std::string(900, '$')), std::string(450, '$'));
    std::string many;
    for (int i = 0; i < 999; ++i) many += "${a}";
    EXPECT_EQ(variables.expand(many), std::string(999, 'x'));
    expect_refused(R"({"jobs": )" + std::string(100'000, '[') + std::string(100'000, ']') + "}", {"nested"});
}

TEST(Recipe, ADollarSignCanBeWritten) {
    Variables variables("r.json");
    variables.set("price", 5);
    EXPECT_EQ(variables.expand("$$${price}, $5, $"), "$5, $5, $");
}

TEST(Recipe, SharesAreDisjointAndWhole) {
    for (std::size_t job = 0; job < 20; ++job) {
        int owners = 0;
        for (const char* share : {"1/3", "2/3", "3/3"}) owners += parse_shard(share).has(job) ? 1 : 0;
        EXPECT_EQ(owners, 1);
    }
    for (const char* wrong : {"0/3", "4/3", "1", "1/0", "a/b", "1/2x", "-1/2", ""}) {
        expect_error(ErrorCode::usage, {"is not a share"}, [&] { (void)parse_shard(wrong); });
    }
}

TEST(Fingerprint, DifferencesAreNamedAsOptions) {
    const nlohmann::ordered_json was = {{"settings", {{"kv-rank", 16}, {"rope", "high"}}}, {"version", "1"}};
    auto is = was;
    EXPECT_EQ(differences(was, is), "");
    is["settings"]["kv-rank"] = 8;
    EXPECT_EQ(differences(was, is), "kv-rank was 16 and is 8");
    is["settings"].erase("rope");
    is["source"]["a.safetensors"] = "x";
    is["version"] = "2";
    const std::string text = differences(was, is);
    EXPECT_NE(text.find("and 1 more"), std::string::npos) << text;
}

}  // namespace
}  // namespace mha2mla::test
