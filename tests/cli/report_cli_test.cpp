// The command report: files, stdout, exit codes.
#include <cmath>
#include <sstream>

#include "mha2mla/calibration.hpp"
#include "mha2mla/rope.hpp"
#include "support/program.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

const std::string kModel = example("kjv-1.8M").string();

class ReportCli : public ::testing::Test {
protected:
    void SetUp() override {
        const auto result = run_program({"calibrate", kModel, "--text", example("kjv-eval.txt").string(), "--samples",
                                         "2", "--seq-len", "64", "-o", stats_});
        ASSERT_EQ(result.exit_code, 0) << result.err;
    }

    [[nodiscard]] std::string path(const std::string& name) const { return (directory_ / name).string(); }
    [[nodiscard]] static ProgramResult report(std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), "report");
        return run_program(arguments);
    }
    void expect_failure(const std::vector<std::string>& arguments, int code,
                        const std::vector<std::string>& needles) const {
        const auto result = report(arguments);
        EXPECT_EQ(result.exit_code, code) << result.err;
        EXPECT_EQ(result.out, "");
        for (const auto& needle : needles) EXPECT_NE(result.err.find(needle), std::string::npos) << result.err;
        EXPECT_FALSE(std::filesystem::exists(path("out.html")));
    }
    /// The statistics with something changed, saved under another name.
    template <typename Change>
    [[nodiscard]] std::string changed(const std::string& name, const Change& change) const {
        CalibrationStats stats = load_stats(stats_);
        change(stats);
        Observer observer;
        save_stats(path(name), stats, observer);
        return path(name);
    }

    const TemporaryDirectory directory_;
    const std::string stats_ = (directory_ / "stats.safetensors").string();
};

TEST_F(ReportCli, JsonAndCsvHoldTheScoresAndRanksOfTheStatistics) {
    const auto result = report({stats_, "--checkpoint", kModel, "--json", "-", "--csv", path("out.csv")});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto json = nlohmann::json::parse(result.out);
    const CalibrationStats stats = load_stats(stats_);
    const auto scores = stats.scores();
    const PairRanks ranks = two_norm_ranks(stats);
    std::ifstream csv(path("out.csv"));
    std::string line;
    std::getline(csv, line);
    EXPECT_EQ(line,
              "layer,kv_head,pair,theta,wavelength,score,rank,kept_by_2-norm,kept_by_high,kept_by_low,kept_by_uniform");
    std::size_t row = 0;
    for (std::int64_t layer = 0; layer < stats.layers; ++layer) {
        for (std::int64_t head = 0; head < stats.kv_heads; ++head) {
            const auto& entry =
                json.at("layers").at(static_cast<std::size_t>(layer)).at("kv_heads").at(static_cast<std::size_t>(head));
            for (std::int64_t k = 0; k < stats.pairs; ++k, ++row) {
                const auto at = static_cast<std::size_t>(k);
                EXPECT_EQ(entry.at("scores").at(at), scores[row]);
                EXPECT_EQ(entry.at("ranks").at(at), ranks.rank(layer, head, k));
                ASSERT_TRUE(std::getline(csv, line));
                std::vector<std::string> cells;
                std::istringstream fields(line);
                for (std::string cell; std::getline(fields, cell, ',');) cells.push_back(cell);
                ASSERT_EQ(cells.size(), 11U);
                EXPECT_NEAR(std::stod(cells[3]), std::pow(10000.0, -2.0 * static_cast<double>(k) / 32), 1e-12);
                EXPECT_EQ(std::stod(cells[5]), scores[row]);
                EXPECT_EQ(cells[7], ranks.rank(layer, head, k) < 2 ? "1" : "0");  // rope-dim 4 is the default
                EXPECT_EQ(cells[8], k < 2 ? "1" : "0");
            }
        }
    }
    EXPECT_FALSE(std::getline(csv, line));
    EXPECT_EQ(json.at("rope_dim"), 4);
    const auto& retained = json.at("layers").at(0).at("retained_energy");
    EXPECT_EQ(retained.at(0).at("kv_rank"), 2);
    EXPECT_EQ(retained.back().at("kv_rank"), 32);
    for (std::size_t i = 1; i < retained.size(); ++i) EXPECT_GT(retained[i].at("joint"), retained[i - 1].at("joint"));
}

TEST_F(ReportCli, FrequenciesComeFromTheModelOrTheOption) {
    const auto source = [&](const std::vector<std::string>& more) {
        std::vector<std::string> arguments = {"--json", "-"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        const auto result = report(arguments);
        EXPECT_EQ(result.exit_code, 0) << result.err;
        const auto json = nlohmann::json::parse(result.out).at("frequencies");
        return std::pair(json.at("source").get<std::string>(), json.at("theta"));
    };
    // calibrate records the model, which is still there.
    EXPECT_NE(source({stats_}).first.find("the model that the statistics name"), std::string::npos);
    EXPECT_FALSE(source({stats_}).second.is_null());
    const std::string moved = changed("moved", [](CalibrationStats& s) { s.model = "/no/such/model"; });
    EXPECT_NE(source({moved}).first.find("unknown"), std::string::npos);
    EXPECT_TRUE(source({moved}).second.is_null());
    EXPECT_NE(source({moved, "--rope-theta", "500000"}).first.find("500000"), std::string::npos);
    EXPECT_NEAR(source({moved, "--rope-theta", "500000"}).second.at(8).get<double>(), 1 / std::sqrt(500000.0), 1e-9);
    EXPECT_NE(source({moved, "--checkpoint", kModel}).first.find("config.json"), std::string::npos);
}

TEST_F(ReportCli, ComparingWithItselfChangesNothing) {
    const auto result = report({stats_, "--compare", stats_, "--json", "-"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const auto comparison = nlohmann::json::parse(result.out).at("comparison");
    EXPECT_TRUE(comparison.at("changes").empty());
    for (const auto& layer : comparison.at("layers")) {
        EXPECT_EQ(layer.at("spearman"), 1);
        EXPECT_EQ(layer.at("jaccard"), 1);
    }
}

TEST_F(ReportCli, ThePageHoldsItsNumbersWithoutScripts) {
    const auto result = report({stats_, "--html", path("page.html")});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.out.find("page.html"), std::string::npos);  // a summary, as no result went to stdout
    const std::string page = read_text(path("page.html"));
    EXPECT_EQ(page.find("{{"), std::string::npos);
    EXPECT_NE(page.find("<noscript>"), std::string::npos);
    const auto json = nlohmann::json::parse(report({stats_, "--json", "-"}).out);
    for (const auto& layer : json.at("layers")) {
        char text[32];
        std::snprintf(text, sizeof text, "<td>%.1f%%</td>", 100 * layer.at("top_share").get<double>());
        EXPECT_NE(page.find(text), std::string::npos) << text;
    }
}

TEST_F(ReportCli, MistakesAreNamed) {
    const std::string html = path("out.html");
    expect_failure({stats_}, 2, {"--html", "--csv", "--json"});
    expect_failure({stats_, "--html", html, "--rope-dim", "5"}, 2, {"rope-dim must be an even number", "32"});
    expect_failure({stats_, "--html", html, "--rope-dim", "34"}, 2, {"rope-dim must be an even number", "32", "34"});
    expect_failure({stats_, "--html", html, "--no-spectra"}, 2, {"--checkpoint"});
    expect_failure({stats_, "--html", html, "--rope-theta", "0"}, 2, {"--rope-theta"});
    expect_failure({stats_, "--html", html, "--rope-theta", "9", "--checkpoint", kModel}, 2, {"--checkpoint"});
    expect_failure({stats_, "--html", "-", "--json", "-"}, 2, {"--html", "--json", "both"});
    expect_failure({stats_, "--html", html, "--csv", path("./out.html")}, 2, {"both"});
    expect_failure({stats_, "--html", stats_}, 2, {"--html", "read by the same command"});
    expect_failure({stats_, "--html", path("none/out.html")}, 1, {"there is no directory", "none"});
    expect_failure({stats_, "--html", directory_.path().string()}, 1, {"is a directory"});
    expect_failure({"/no/such.safetensors", "--html", html}, 1, {"/no/such.safetensors"});
    expect_failure({kModel + "/model.safetensors", "--html", html}, 1, {"not a statistics file", "calibrate"});
    (void)load_stats(stats_);  // still whole
}

TEST_F(ReportCli, StatisticsOfAnotherModelAreRefused) {
    const std::string html = path("out.html");
    const std::string fewer = changed("fewer", [](CalibrationStats& s) {
        s.layers = 2;
        s.mean_query_norm.resize(s.mean_query_norm.size() / 2);
        s.mean_key_norm.resize(s.mean_key_norm.size() / 2);
    });
    expect_failure({fewer, "--html", html, "--checkpoint", kModel}, 2, {"another model", "[2, 6, 3, 16]"});
    expect_failure({fewer, "--html", html, "--compare", stats_}, 2, {"fewer", "stats.safetensors", "[4, 6, 3, 16]"});
    // The recorded model does not fit: the report is made, without its frequencies, and says so.
    const auto result = report({fewer, "--json", "-"});
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_NE(result.err.find("frequencies are left out"), std::string::npos) << result.err;
    EXPECT_TRUE(nlohmann::json::parse(result.out).at("frequencies").at("theta").is_null());
    const std::string nothing = changed("nothing", [](CalibrationStats& s) {
        s.layers = 0;
        s.mean_query_norm.clear();
        s.mean_key_norm.clear();
    });
    expect_failure({nothing, "--html", html}, 1, {"the statistics are empty", "[0, 6, 3, 16]"});
}

/// Values that differ by rounding, by more than a double holds, or not at all.
TEST(TrainingReportCli, AnyNumbersMakeAPage) {
    const TemporaryDirectory directory;
    const auto log = directory / "training.jsonl", page = directory / "page.html";
    const std::vector<std::pair<std::string, std::string>> pairs = {{"5", "5.000000000000001"},
                                                                    {"2e16", "20000000000000008"},
                                                                    {"-1.7e308", "1.7e308"},
                                                                    {"0", "0"},
                                                                    {"0", "5e-324"}};
    for (const auto& [first, second] : pairs) {
        write_text(log, R"({"step":0,"nll":)" + first + "}\n" + R"({"step":0,"loss":1,"gradient_norm":1,)" +
                            R"("learning_rate":1,"tokens":1e308,"tokens_per_second":1})" + "\n" +
                            R"({"step":1,"nll":)" + second + "}\n");
        const auto result = run_program({"report", "--training", log, "--html", page, "--overwrite"}, "timeout 20");
        EXPECT_EQ(result.exit_code, 0) << first << result.err;
        const std::string html = read_text(page);
        EXPECT_LT(html.size(), 50'000U) << first;
        for (const char* none : {"nan", "inf"}) EXPECT_EQ(html.find(none), std::string::npos) << first;
    }
    write_text(log, R"({"step":0,"nll":1e999})");
    EXPECT_EQ(run_program({"report", "--training", log, "--html", directory / "none.html"}).exit_code, 1);
    EXPECT_EQ(
        run_program({"report", "--training", "/dev/zero", "--html", directory / "none.html"}, "timeout 20").exit_code,
        1);
}

}  // namespace
}  // namespace mha2mla::test
