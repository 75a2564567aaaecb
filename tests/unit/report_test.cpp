#include "mha2mla/report.hpp"

#include <Eigen/SVD>
#include <cmath>
#include <numbers>
#include <random>

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/convert.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

/// Every query norm is 1, so that a KV head's score is its key norm times the query heads of its group.
NamedStats stats_of(std::int64_t layers, std::int64_t kv_heads, std::int64_t group, std::vector<double> key_norms) {
    CalibrationStats stats;
    stats.layers = layers;
    stats.heads = kv_heads * group;
    stats.kv_heads = kv_heads;
    stats.pairs = static_cast<std::int64_t>(key_norms.size()) / (layers * kv_heads);
    stats.mean_query_norm.assign(static_cast<std::size_t>(layers * stats.heads * stats.pairs), 1.0);
    stats.mean_key_norm = std::move(key_norms);
    return {"test.safetensors", std::move(stats)};
}

ReportOptions at(std::int64_t rope_dim) {
    ReportOptions options;
    options.rope_dim = rope_dim;
    return options;
}

std::string render(const std::string& format, const Report& report) {
    for (const auto& row : report_formats()) {
        if (row.name == format) return row.render(report);
    }
    throw std::runtime_error("no format " + format);
}

TEST(Report, ConcentrationOfKnownDistributions) {
    const Report even = make_report(stats_of(1, 1, 2, {3, 3, 3, 3}), at(4));
    EXPECT_NEAR(even.layers[0].gini, 0, 1e-12);
    EXPECT_NEAR(even.layers[0].effective_pairs, 4, 1e-12);
    EXPECT_NEAR(even.layers[0].top_share[1], 0.5, 1e-12);
    const Report one = make_report(stats_of(1, 1, 1, {0, 7, 0, 0}), at(2));
    EXPECT_NEAR(one.layers[0].gini, 0.75, 1e-12);  // 1 - 1/n if one of n has the whole score
    EXPECT_NEAR(one.layers[0].effective_pairs, 1, 1e-12);
    EXPECT_NEAR(one.layers[0].top_share[0], 1, 1e-12);
    // Gini of 1, 2, 3, 4: mean |difference| over all ordered pairs, 20/16, over twice the mean, 5. Entropy of tenths.
    const Report rising = make_report(stats_of(1, 1, 1, {1, 2, 3, 4}), at(2));
    EXPECT_NEAR(rising.layers[0].gini, 0.25, 1e-12);
    EXPECT_NEAR(rising.layers[0].top_share[0], 0.4, 1e-12);
    EXPECT_NEAR(rising.layers[0].top_share[3], 1, 1e-12);
    const double entropy = -(0.1 * std::log(0.1) + 0.2 * std::log(0.2) + 0.3 * std::log(0.3) + 0.4 * std::log(0.4));
    EXPECT_NEAR(rising.layers[0].effective_pairs, std::exp(entropy), 1e-12);
    // With two heads: means. A head whose scores are zero has equal pairs.
    const Report two = make_report(stats_of(1, 2, 1, {0, 7, 0, 0, 0, 0, 0, 0}), at(2));
    EXPECT_NEAR(two.layers[0].gini, 0.375, 1e-12);
    EXPECT_NEAR(two.layers[0].effective_pairs, 2.5, 1e-12);
    EXPECT_NEAR(two.layers[0].top_share[0], 0.625, 1e-12);
}

TEST(Report, AgreementIsTheJaccardIndexOfKeptPairs) {
    // 2-norm keeps 0, 1 in head 0 (as high) and 1, 2 in head 1; low keeps 2, 3; uniform keeps 0, 2.
    const Report report = make_report(stats_of(1, 2, 1, {9, 8, 1, 0, 1, 9, 8, 0}), at(4));
    const auto jaccard = [&](std::size_t a, std::size_t b) { return report.layers[0].agreement[1][a * 4 + b]; };
    ASSERT_EQ(rope_strategies()[0].name, "2-norm");
    EXPECT_NEAR(jaccard(0, 1), (1 + 1.0 / 3) / 2, 1e-12);
    EXPECT_NEAR(jaccard(0, 2), (0 + 1.0 / 3) / 2, 1e-12);
    EXPECT_NEAR(jaccard(0, 3), (1.0 / 3 + 1.0 / 3) / 2, 1e-12);
    EXPECT_NEAR(jaccard(1, 2), 0, 1e-12);
    for (std::size_t s = 0; s < 4; ++s) {
        EXPECT_EQ(jaccard(s, s), 1);
        EXPECT_EQ(report.layers[0].agreement[3][s], 1);  // all selections agree if all pairs are kept
    }
}

TEST(Report, AnOrderIsShownIfTheStatisticsHaveIt) {
    NamedStats stats = stats_of(1, 2, 1, {9, 8, 1, 0, 1, 9, 8, 0});
    EXPECT_EQ(render("csv", make_report(stats, at(4))).find("attention"), std::string::npos);
    stats.stats.orders["attention"] = {3, 2, 1, 0, 0, 1, 2, 3};  // keeps 2, 3 in head 0 and 0, 1 in head 1
    const Report report = make_report(stats, at(4));
    ASSERT_EQ(report.kept.size(), 5U);
    EXPECT_EQ(report.kept[1].strategy, "attention");
    EXPECT_NEAR(report.layers[0].agreement[1][1], (0 + 1.0 / 3) / 2, 1e-12);  // with 2-norm
    const std::string csv = render("csv", report);
    EXPECT_NE(csv.find("kept_by_2-norm,kept_by_attention,kept_by_high"), std::string::npos) << csv;
    EXPECT_NE(render("html", report).find("\"ranks\":[3,2,1,0,0,1,2,3]"), std::string::npos);
    const auto json = nlohmann::json::parse(render("json", report));
    EXPECT_NE(json.dump().find("\"attention\":[2,3]"), std::string::npos);
}

TEST(Report, ComparisonListsTheHeadsThatChange) {
    ReportOptions options = at(4);
    options.other = stats_of(1, 2, 1, {4, 3, 2, 1, 3, 4, 2, 1});
    options.other->name = "other.safetensors";
    const Report report = make_report(stats_of(1, 2, 1, {1, 2, 3, 4, 4, 3, 2, 1}), options);
    const Comparison& comparison = *report.comparison;
    // Head 0 is reversed (-1), head 1 has two neighbours swapped: 1 - 6 * 2 / 60.
    EXPECT_NEAR(comparison.layers[0].spearman, (-1 + 0.8) / 2, 1e-12);
    EXPECT_NEAR(comparison.layers[0].jaccard[1], (0 + 1.0) / 2, 1e-12);
    ASSERT_EQ(comparison.changes.size(), 1U);
    EXPECT_EQ(comparison.changes[0].kv_head, 0);
    EXPECT_EQ(comparison.changes[0].leaving, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(comparison.changes[0].entering, (std::vector<std::int64_t>{0, 1}));
}

TEST(Report, ImpossibleInputsAreRefused) {
    const auto report = [](NamedStats stats, ReportOptions options) {
        return [=] { (void)make_report(stats, options); };
    };
    const NamedStats good = stats_of(1, 1, 1, {1, 2, 3, 4});
    for (const std::int64_t bad : {3, 10, -2, 1}) {
        expect_error(ErrorCode::usage, {"even", "from 2 to head_dim (8)", std::to_string(bad)}, report(good, at(bad)));
    }
    NamedStats empty = good;
    empty.stats.layers = 0;
    expect_error(ErrorCode::format, {"test.safetensors", "[0, 1, 1, 4]"}, report(empty, at(2)));
    NamedStats no_pairs{"none.safetensors", {}};
    no_pairs.stats.layers = no_pairs.stats.heads = no_pairs.stats.kv_heads = 1;
    expect_error(ErrorCode::format, {"none.safetensors", "[1, 1, 1, 0]"}, report(no_pairs, at(2)));
    expect_error(ErrorCode::unsupported, {"256"}, report(stats_of(1, 1, 1, std::vector<double>(300, 1.0)), at(2)));
    expect_error(ErrorCode::numeric, {"layer 0, KV head 1"}, report(stats_of(1, 2, 3, {1, 1, 1e308, 1}), at(2)));
    ReportOptions options = at(2);
    options.other = stats_of(1, 1, 1, {1, 2, 3});
    options.other->name = "other.safetensors";
    expect_error(ErrorCode::usage, {"test.safetensors", "other.safetensors", "[1, 1, 1, 4]", "[1, 1, 1, 3]"},
                 report(good, options));
}

TEST(Report, TextFromFilesIsEscaped) {
    NamedStats stats = stats_of(1, 1, 1, {1, 2, 3, 4});
    stats.stats.model = "</script><script>alert('{{data}}')</script>";
    stats.stats.data = "<b>&\"";
    stats.name = "{{title}}<i>.safetensors";
    const std::string page = render("html", make_report(stats, at(2)));
    EXPECT_EQ(page.find("<script>alert"), std::string::npos);
    EXPECT_EQ(page.find("<b>&"), std::string::npos);
    EXPECT_EQ(page.find("<i>.safetensors"), std::string::npos);
    EXPECT_NE(page.find("&lt;b&gt;&amp;&quot;"), std::string::npos);
    EXPECT_NE(page.find("alert(&#39;{{data}}&#39;)"), std::string::npos);  // inserted text is not replaced again
    EXPECT_NE(page.find("{{title}}&lt;i&gt;"), std::string::npos);
}

TEST(Report, UnknownFrequenciesAreAbsent) {
    const Report without = make_report(stats_of(1, 1, 1, {1, 2}), at(2));
    EXPECT_NE(render("csv", without).find("\n0,0,0,,,1,1,"), std::string::npos);
    EXPECT_TRUE(nlohmann::json::parse(render("json", without)).at("frequencies").at("theta").is_null());
    EXPECT_EQ(render("html", without).find("radian"), std::string::npos);
    ReportOptions options = at(2);
    options.frequencies = {{1.0, 0.25}, "the test"};
    const Report with = make_report(stats_of(1, 1, 1, {1, 2}), options);
    EXPECT_NE(render("csv", with).find("\n0,0,1,0.25,25.13274122871834"), std::string::npos);
    const auto json = nlohmann::json::parse(render("json", with));
    EXPECT_NEAR(json.at("frequencies").at("wavelength").at(1).get<double>(), 8 * std::numbers::pi, 1e-12);
}

TEST(Spectrum, SingularValuesEqualEigensJacobiSvd) {
    std::mt19937 generator(5);
    std::normal_distribution<float> normal;
    for (const auto& [rows, columns] : {std::pair{30, 12}, {12, 30}, {20, 20}, {1, 9}, {9, 1}}) {
        Matrix a = Matrix::NullaryExpr(rows, columns, [&] { return normal(generator); });
        a.col(0) *= 1000;
        const Eigen::VectorXd judge = Eigen::MatrixXd(a.cast<double>()).jacobiSvd().singularValues();
        const auto values = singular_values(a);
        ASSERT_EQ(values.size(), static_cast<std::size_t>(judge.size()));
        for (std::size_t i = 0; i < values.size(); ++i) {
            EXPECT_NEAR(values[i], judge[static_cast<Eigen::Index>(i)], 1e-7 * judge[0]) << rows << " x " << columns;
        }
    }
    EXPECT_TRUE(singular_values(Matrix(0, 5)).empty());
    Matrix broken = Matrix::Ones(3, 3);
    broken(1, 1) = std::nanf("");
    expect_error(ErrorCode::numeric, {"not finite"}, [&] { (void)singular_values(broken); });
}

TEST(Spectrum, PredictsTheEnergyThatConvertKeeps) {
    const TemporaryDirectory directory;
    write_tiny_model(directory / "model", {.seed = 3});
    const Model model = Model::open(directory / "model");
    RopeSelection selection = select_rope(model.config, {"uniform", 4, 0}, nullptr);
    Observer observer;
    const auto spectra = layer_spectra(model, selection, observer);
    ASSERT_EQ(spectra.size(), 2U);
    EXPECT_EQ(spectra[0].joint.rows, 2 * (2 * 8 - 4));
    EXPECT_EQ(spectra[0].key_nope.rows + spectra[0].value.rows, spectra[0].joint.rows);
    EXPECT_NEAR(spectra[0].joint.energy(), spectra[0].key_nope.energy() + spectra[0].value.energy(), 1e-9);
    for (const auto factorization : {Factorization::joint, Factorization::split}) {
        StagedPlan stages;
        stages.rope = {"uniform", 4, 0};
        stages.kv_rank = 4;
        stages.factorization = factorization;
        const auto converted = convert(model, directory / "out", {stages}, {}, observer, {.overwrite = true});
        for (std::size_t layer = 0; layer < spectra.size(); ++layer) {
            const auto retained = retained_energies(model.config, 4, spectra[layer]);
            ASSERT_EQ(retained[3].kv_rank, 4);
            EXPECT_EQ(retained[3].latent_width, 8);
            EXPECT_NEAR(factorization == Factorization::joint ? retained[3].joint : retained[3].split,
                        converted.retained_energy[layer], 1e-6);
        }
    }
    const Model mla = Model::open(directory / "out");
    expect_error(ErrorCode::usage, {"already converted"}, [&] { (void)layer_spectra(mla, selection, observer); });
    selection.pairs.pop_back();
    expect_error(ErrorCode::usage, {"1 layers", "2"}, [&] { (void)layer_spectra(model, selection, observer); });
}

TEST(Spectrum, AHeadThatKeepsAllItsPairsHasNoKeysToFactorise) {
    const TemporaryDirectory directory;
    write_tiny_model(directory / "model");
    const Model model = Model::open(directory / "model");
    Observer observer;
    const auto spectra = layer_spectra(model, select_rope(model.config, {"high", 8, 0}, nullptr), observer);
    EXPECT_TRUE(spectra[0].key_nope.values.empty());
    EXPECT_EQ(spectra[0].joint.values, spectra[0].value.values);
}

}  // namespace
}  // namespace mha2mla::test
