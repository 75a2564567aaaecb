// Optimiser, schedules and whole training runs compared with torch.
#include <Eigen/SVD>

#include "mha2mla/finetune.hpp"
#include "mha2mla/safetensors_writer.hpp"
#include "mha2mla/token_file.hpp"
#include "mha2mla/windows.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "train/adamw.hpp"

namespace mha2mla::test {
namespace {

Vector vector_of(const nlohmann::json& numbers) {
    const auto values = numbers.flatten();
    Vector result(static_cast<Eigen::Index>(values.size()));
    Eigen::Index i = 0;
    for (const auto& row : numbers) {
        for (const auto& value : row.is_array() ? row : nlohmann::json::array({row})) result(i++) = value.get<float>();
    }
    return result;
}

/// `tolerance` of the larger of 1 and what is expected.
void expect_near(const std::string& what, const Vector& ours, const Vector& expected, double tolerance) {
    ASSERT_EQ(ours.size(), expected.size()) << what;
    for (Eigen::Index i = 0; i < ours.size(); ++i) {
        EXPECT_NEAR(ours(i), expected(i), tolerance * std::max(1.0, std::abs(double(expected(i)))))
            << what << ", " << i;
    }
}

nlohmann::json optimiser_figures() { return read_json(shared("golden/training/optimiser.json")); }

Vector floats_of(std::span<const std::byte> bytes) {
    Vector result(static_cast<Eigen::Index>(bytes.size() / sizeof(float)));
    std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
}

TEST(OptimiserGolden, EveryStepOfAdamWIsTorchs) {
    MHA2MLA_NEEDS_SHARED("golden/training");
    const auto figures = optimiser_figures();
    const auto& gradients = figures.at("problem").at("gradients");
    for (const auto& run : figures.at("adamw")) {
        const std::string note = run.at("note");
        Vector value = vector_of(figures.at("problem").at("parameters")), gradient = value;
        Parameter parameter{
            "p", {value.data(), std::size_t(value.size())}, {gradient.data(), std::size_t(value.size())}};
        parameter.decays = true;
        AdamW adamw({parameter}, {run.at("betas")[0], run.at("betas")[1], run.at("eps"), run.at("weight_decay")});
        for (std::size_t s = 0; s < gradients.size(); ++s) {
            std::ranges::copy(vector_of(gradients[s]), gradient.data());  // where it is
            const auto& step = run.at("steps")[s];
            const double factor = run.at("lr_factors").is_null() ? 1 : run.at("lr_factors")[s].get<double>();
            double scale = 1;
            if (!run.at("clip").is_null()) {
                const double norm = gradient_norm(adamw.parameters());
                EXPECT_NEAR(norm, step.at("gradient_norm").get<double>(), 1e-6 * norm) << note;
                scale = clip_factor(norm, run.at("clip"));
            }
            adamw.step(run.at("lr").get<double>() * factor, scale);
            expect_near(note + ", step " + std::to_string(s), value, vector_of(step.at("parameters")), 1e-6);
        }
        const auto moments = adamw.moments(0);
        expect_near(note + ", first moment", floats_of(moments.first(moments.size() / 2)),
                    vector_of(run.at("first_moment_after")), 1e-5);
        expect_near(note + ", second moment", floats_of(moments.subspan(moments.size() / 2)),
                    vector_of(run.at("second_moment_after")), 1e-5);
    }
}

TEST(OptimiserGolden, ClippingIsTorchs) {
    MHA2MLA_NEEDS_SHARED("golden/training");
    const auto figures = optimiser_figures();
    for (const auto& example : figures.at("clipping")) {
        const std::string name = example.at("name");
        std::vector<Vector> tensors;
        for (const auto& numbers : example.at("gradients")) tensors.push_back(vector_of(numbers));
        std::vector<Parameter> parameters;
        for (Vector& tensor : tensors) {
            const std::span<float> all(tensor.data(), std::size_t(tensor.size()));
            parameters.push_back({"g", all, all});
        }
        const double norm = gradient_norm(parameters);
        EXPECT_NEAR(norm, example.at("norm").get<double>(), 1e-6 * norm) << name;
        const double factor = clip_factor(norm, example.at("max_norm"));
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            expect_near(name, tensors[i] * float(factor), vector_of(example.at("clipped")[i]), 1e-6);
        }
    }
}

TEST(OptimiserGolden, SchedulesAreTheReferencesAndTransformers) {
    MHA2MLA_NEEDS_SHARED("golden/training");
    const auto figures = optimiser_figures();
    for (const auto& example : figures.at("schedules")) {
        const std::string name = example.at("name");
        const auto& given = example.at("arguments");
        const auto number = [&](const char* reference, const char* transformers) -> std::int64_t {
            for (const char* key : {reference, transformers}) {
                if (given.contains(key) && given.at(key).is_number()) return given.at(key);
            }
            return -1;
        };
        const std::int64_t total = example.at("total_steps");
        RateSchedule schedule;
        const std::string style =
            given.value("lr_decay_style", given.value("decay_type", name.substr(0, name.find(' '))));
        for (const auto& row : kRateDecays) {
            if (row.name == style) schedule.decay = row.decay;
        }
        schedule.warmup = number("lr_warmup_steps", "num_warmup_steps");
        schedule.decay_start = number("lr_decay_starting_step", "");
        schedule.decay_steps = number("lr_decay_steps", "num_decay_steps");
        if (schedule.decay_start < 0) {
            schedule.decay_start = schedule.decay_steps < 0 ? schedule.warmup : total - schedule.decay_steps;
        }
        if (schedule.decay_steps < 0) schedule.decay_steps = total - schedule.decay_start;
        schedule.floor = given.value("min_decay_lr", 0.0) / example.at("base_lr").get<double>();
        const auto& factors = example.at("factors");
        for (std::size_t i = 0; i < factors.size(); ++i) {
            const auto step = example.contains("at") ? example.at("at")[i].get<std::int64_t>() : std::int64_t(i);
            if (step > total) break;  // transformers' cosine rises again
            EXPECT_NEAR(schedule.factor(step), factors[i].get<double>(), 1e-12) << name << ", step " << step;
        }
    }
}

/// Runs of kjv-1.8M whose batch s is windows 4s to 4s + 3.
class TrainingGolden : public testing::Test {
protected:
    static constexpr std::int64_t kSteps = 20, kBatch = 4, kLength = 128;

    void SetUp() override {
        MHA2MLA_NEEDS_SHARED("golden/training");
        source_.emplace(Model::open(example("kjv-1.8M")));
        const auto tokens = read_token_file(shared("golden/kjv-1.8M/calibration_tokens.u16"), TokenFormat::u16, 1024);
        text_.ids = make_windows(source_->config, tokens, {kLength, kSteps * kBatch});
        options_.schedule = {RateDecay::one_minus_sqrt, 5, 15, 5, 0};
        options_.steps = kSteps;
        options_.batch = kBatch;
        options_.micro_batch = 3;  // and one more
        options_.seq_len = kLength;
        options_.shuffle = false;
    }

    void expect_run(const Model& model, const Model* teacher, const nlohmann::json& expected,
                    std::int64_t steps = kSteps) {
        Finetuner finetuner(model, teacher, text_, options_);
        for (const auto& step : expected.at("steps")) {
            if (finetuner.steps_done() == steps) break;
            const StepReport ours = finetuner.step();
            const double loss = step.at("loss"), norm = step.at("gradient_norm");
            EXPECT_NEAR(ours.rate, step.at("lr").get<double>(), 1e-12);
            EXPECT_NEAR(ours.loss, loss, 1e-5 * loss) << "step " << ours.step;
            EXPECT_NEAR(ours.gradient_norm, norm, 1e-4 * norm) << "step " << ours.step;
        }
    }

    std::optional<Model> source_;
    TrainingText text_;
    FinetuneOptions options_;
};

TEST_F(TrainingGolden, AllWeights) {
    expect_run(*source_, nullptr, read_json(shared("golden/training/trajectory_full.json")).at("float64"));
    options_.keep_activations = true;
    expect_run(*source_, nullptr, read_json(shared("golden/training/trajectory_full.json")).at("float64"), 6);
}

TEST_F(TrainingGolden, AttentionAlone) {
    const auto expected = read_json(shared("golden/training/trajectory_attention.json"));
    options_.part = TrainedPart::attention;
    expect_run(*source_, nullptr, expected.at("float64"));
    options_.part = TrainedPart::attention_norms;
    expect_run(*source_, nullptr, expected.at("mha2mla_rule").at("float64"), 8);
}

/// The best approximation of rank 24.
Matrix cut(const Matrix& weight) {
    constexpr Eigen::Index kRank = 24;
    const Eigen::JacobiSVD<Eigen::MatrixXd> svd(weight.cast<double>(), Eigen::ComputeThinU | Eigen::ComputeThinV);
    return (svd.matrixU().leftCols(kRank) * svd.singularValues().head(kRank).asDiagonal() *
            svd.matrixV().leftCols(kRank).transpose())
        .cast<float>();
}

TEST_F(TrainingGolden, DistillationOfAModelWhoseKeysAndValuesWereCut) {
    const TemporaryDirectory directory;
    std::filesystem::copy(example("kjv-1.8M") / "config.json", directory / "config.json");
    const auto& tensors = source_->checkpoint.files().front().tensors();
    std::vector<TensorSpec> specs;
    for (const TensorView& tensor : tensors) specs.push_back({tensor.name, Dtype::f32, tensor.shape});
    std::vector<float> values;
    write_safetensors(directory / "model.safetensors", specs,
                      [&](std::size_t i) -> std::span<const std::byte> {
                          values = to_finite_floats(tensors[i]);
                          const std::string& name = tensors[i].name;
                          if (name.find("k_proj") != std::string::npos || name.find("v_proj") != std::string::npos) {
                              Eigen::Map<Matrix> weight(values.data(), tensors[i].rows(), tensors[i].cols());
                              weight = cut(weight);
                          }
                          return std::as_bytes(std::span<const float>(values));
                      },
                      {});
    const Model student = Model::open(directory.path());
    const auto expected = read_json(shared("golden/training/trajectory_kl.json"));
    options_.loss = {0, 1, 0};
    expect_run(student, &*source_, expected.at("float64"));
    options_.part = TrainedPart::attention;
    expect_run(student, &*source_, expected.at("attention_only").at("float64"), 8);
}

}  // namespace
}  // namespace mha2mla::test
