// Training of whole models: what is stored and read again, gradients, and what a batch may be cut into.
#include "mha2mla/finetune.hpp"

#include "finetune/trained_model.hpp"
#include "mha2mla/convert.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

constexpr std::int64_t kLength = 12;

std::vector<TokenId> pseudo_text(std::int64_t vocab, std::int64_t count) {
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < count; ++i) ids.push_back(static_cast<TokenId>((i * i * 7 + 3 * i + i / 5) % vocab));
    return ids;
}

struct Form {
    const char* name;
    const char* layout;  // empty: not converted
    LatentNorm norm = LatentNorm::identity;
    bool biased = false;
    std::optional<Factorization> factorization = std::nullopt;  // a conversion in stages
    const char* family = nullptr;                               // of the golden checkpoints, in place of a tiny Llama
};

constexpr Form in_stages(const char* name, Factorization factorization, bool biased = false) {
    return {name, "mha2mla", LatentNorm::identity, biased, factorization};
}

/// A golden checkpoint, converted with what its family adds to attention or to the MLP.
constexpr Form family(const char* name, const char* folder) {
    return {name, "mha2mla", LatentNorm::identity, false, Factorization::joint, folder};
}

/// A tiny model in one of the forms that can be trained.
class Trainable : public testing::TestWithParam<Form> {
protected:
    void SetUp() override {
        std::filesystem::path folder = directory_ / "source";
        if (GetParam().family != nullptr) {
            MHA2MLA_NEEDS_SHARED(GetParam().family);
            folder = shared(GetParam().family);
        } else {
            write_tiny_model(folder, {.attention_bias = GetParam().biased});
        }
        const Model source = Model::open(folder);
        vocab_ = source.config.vocab_size;
        const std::string layout = GetParam().layout;
        if (layout.empty()) return model_.emplace(Model::open(folder)), void();
        if (GetParam().factorization) return convert_in_stages(source, *GetParam().factorization);
        const auto ids = pseudo_text(vocab_, 8 * kLength);
        AlignOptions options{0, 4, layout == "deepseek" ? 12 : 6, {"", 0, 4 * kLength, ""}, &find_layout(layout)};
        options.latent_norm = GetParam().norm;
        Observer observer;
        const AlignRequest request{options, 8, kLength};
        Aligner aligner(source, ids, kLength, options, observer);
        (void)convert(source, directory_ / "out", {request, Dtype::f32}, {nullptr, nullptr, &aligner}, observer);
        model_.emplace(Model::open(directory_ / "out"));
    }

    void convert_in_stages(const Model& source, Factorization factorization) {
        StagedPlan stages;
        stages.rope = {"uniform", 4, 0};
        stages.kv_rank = 4;
        stages.factorization = factorization;
        Observer observer;
        (void)convert(source, directory_ / "out", {stages, Dtype::f32}, {}, observer);
        model_.emplace(Model::open(directory_ / "out"));
    }

    double loss_of(TrainedModel& trained, const std::vector<TokenId>& ids, const std::vector<TokenId>& next) {
        const TrainingBatch batch{ids, next, std::ssize(ids)};
        return trained.accumulate(batch, nullptr, {}).front();
    }

    TemporaryDirectory directory_;
    std::optional<Model> model_;
    std::int64_t vocab_ = 0;
};

TEST_P(Trainable, IsStoredAsItWasRead) {
    TrainedModel trained(*model_, TrainedPart::all, kLength, false);
    const Model& stored = trained.stored();
    for (const SafetensorsFile& file : model_->checkpoint.files()) {
        for (const TensorView& tensor : file.tensors()) {
            const std::vector<float> before = to_finite_floats(tensor);
            const std::vector<float> after = to_finite_floats(*stored.checkpoint.find(tensor.name));
            ASSERT_EQ(before.size(), after.size());
            for (std::size_t i = 0; i < before.size(); ++i) {
                ASSERT_NEAR(after[i], before[i], 1e-6 * std::abs(before[i])) << tensor.name << ", " << i;
            }
        }
    }
}

TEST_P(Trainable, HasTheGradientOfItsLoss) {
    TrainedModel trained(*model_, TrainedPart::all, kLength, false);
    const auto ids = pseudo_text(vocab_, 2 * kLength);
    const auto next = pseudo_text(vocab_ - 1, 2 * kLength);
    trained.clear_gradients();
    (void)loss_of(trained, ids, next);
    std::map<std::string, std::vector<float>> gradients;
    for (const Parameter& parameter : trained.parameters()) {
        gradients[parameter.name].assign(parameter.gradient.begin(), parameter.gradient.end());
    }
    // Along its own gradient g the loss changes by |g|² times the step.
    for (const Parameter& parameter : trained.parameters()) {
        const std::vector<float>& gradient = gradients.at(parameter.name);
        double square = 0;
        for (const float g : gradient) square += double(g) * double(g);
        ASSERT_TRUE(std::isfinite(square)) << parameter.name;
        if (square < 1e-10) continue;
        const double step = 5e-3 / std::sqrt(square);
        const auto moved = [&](double by) {
            for (std::size_t i = 0; i < gradient.size(); ++i) parameter.value[i] += float(by) * gradient[i];
            const double loss = loss_of(trained, ids, next);
            for (std::size_t i = 0; i < gradient.size(); ++i) parameter.value[i] -= float(by) * gradient[i];
            return loss;
        };
        const double slope = (moved(step) - moved(-step)) / (2 * step);
        EXPECT_NEAR(slope, square, 0.02 * square + 3e-4 * std::sqrt(square)) << parameter.name;
    }
}

/// Two documents of half a sequence, which do not see each other, are two sequences.
TEST_P(Trainable, DocumentsThatAreApartAreSequencesOfTheirOwn) {
    TrainedModel together(*model_, TrainedPart::all, kLength, false);
    TrainedModel apart(*model_, TrainedPart::all, kLength / 2, false);
    const auto ids = pseudo_text(vocab_, 2 * kLength), next = pseudo_text(vocab_ - 1, 2 * kLength);
    std::vector<std::int64_t> begins;
    for (std::int64_t t = 0; t < 2 * kLength; ++t) begins.push_back(t % kLength < kLength / 2 ? 0 : kLength / 2);
    for (TrainedModel* model : {&together, &apart}) model->clear_gradients();
    const double loss = together.accumulate({ids, next, std::ssize(ids), begins}, nullptr, {}).front();
    EXPECT_NEAR(loss, loss_of(apart, ids, next), 1e-6 * loss);
    const auto seen = together.parameters(), expected = apart.parameters();
    ASSERT_EQ(seen.size(), expected.size());
    for (std::size_t i = 0; i < seen.size(); ++i) {
        double difference = 0, size = 0;
        for (std::size_t j = 0; j < seen[i].gradient.size(); ++j) {
            difference = std::max(difference, std::abs(double(seen[i].gradient[j]) - double(expected[i].gradient[j])));
            size = std::max(size, std::abs(double(expected[i].gradient[j])));
        }
        EXPECT_LE(difference, 1e-4 * size + 1e-7) << seen[i].name;
    }
    EXPECT_GT(std::abs(loss - together.accumulate({ids, next, std::ssize(ids)}, nullptr, {}).front()), 1e-5 * loss)
        << "without borders it is another loss";
}

INSTANTIATE_TEST_SUITE_P(
    Forms, Trainable,
    testing::Values(Form{"original", ""}, Form{"original_biased", "", LatentNorm::identity, true},
                    Form{"per_head", "mha2mla"}, Form{"per_head_biased", "mha2mla", LatentNorm::identity, true},
                    in_stages("joint", Factorization::joint), in_stages("split", Factorization::split),
                    in_stages("split_biased", Factorization::split, true), in_stages("key_alone", Factorization::key),
                    in_stages("value_alone", Factorization::value), in_stages("partial_rope", Factorization::none),
                    Form{"deepseek", "deepseek"}, Form{"deepseek_constant", "deepseek", LatentNorm::constant},
                    Form{"deepseek_trained", "deepseek", LatentNorm::trained},
                    Form{"deepseek_biased", "deepseek", LatentNorm::identity, true},
                    Form{"deepseek_constant_biased", "deepseek", LatentNorm::constant, true},
                    family("qwen2_moe_per_head", "golden/families5/qwen2-moe"),
                    family("qwen3_moe_per_head", "golden/families5/qwen3-moe-raw"),
                    family("qwen3_per_head", "golden/families5/qwen3"),
                    family("olmo2_per_head", "golden/families5/olmo2"),
                    family("gemma3_per_head", "golden/families5/gemma3")),
    [](const auto& info) { return std::string(info.param.name); });

class FinetuneTest : public testing::Test {
protected:
    void SetUp() override {
        write_tiny_model(directory_ / "model");
        model_.emplace(Model::open(directory_ / "model"));
        text_.ids = pseudo_text(model_->config.vocab_size, 10 * kLength);
        options_.seq_len = kLength;
        options_.batch = 4;
        options_.rate = 0.01;
        options_.steps = 6;
    }
    TemporaryDirectory directory_;
    std::optional<Model> model_;
    TrainingText text_;
    FinetuneOptions options_;
};

TEST_F(FinetuneTest, MicroBatchesAndKeptActivationsChangeNothingButRounding) {
    std::vector<double> losses;
    for (const auto& [micro, keep] : {std::pair{4, false}, {1, false}, {3, true}}) {
        options_.micro_batch = micro;
        options_.keep_activations = keep;
        Finetuner finetuner(*model_, nullptr, text_, options_);
        std::vector<double> ours;
        for (int step = 0; step < 6; ++step) ours.push_back(finetuner.step().loss);
        if (losses.empty()) losses = ours;
        for (std::size_t i = 0; i < ours.size(); ++i) EXPECT_NEAR(ours[i], losses[i], 1e-5);
        EXPECT_LT(ours.back(), ours.front());
    }
}

TEST_F(FinetuneTest, GoesOnFromASavedStateToTheSameBytes) {
    for (const bool bf16 : {false, true}) {
        options_.bf16_moments = bf16;
        Finetuner whole(*model_, nullptr, text_, options_);
        for (int step = 0; step < 3; ++step) (void)whole.step();
        whole.save(directory_ / "state.safetensors");
        Finetuner resumed(*model_, nullptr, text_, options_);
        ASSERT_TRUE(resumed.restore(directory_ / "state.safetensors"));
        EXPECT_EQ(resumed.steps_done(), 3);
        for (int step = 3; step < 6; ++step) EXPECT_EQ(whole.step().loss, resumed.step().loss);
        const auto name = "model.layers.1.mlp.up_proj.weight";
        EXPECT_EQ(to_finite_floats(*whole.model().checkpoint.find(name)),
                  to_finite_floats(*resumed.model().checkpoint.find(name)));
    }
    options_.part = TrainedPart::kv;
    Finetuner other(*model_, nullptr, text_, options_);
    EXPECT_FALSE(other.restore(directory_ / "none"));
    expect_error(ErrorCode::format, {"other tensors"}, [&] { (void)other.restore(directory_ / "state.safetensors"); });
}

TEST_F(FinetuneTest, BelievesNoStateThatIsNotAsItWasWritten) {
    const auto state = directory_ / "state.safetensors";
    Finetuner whole(*model_, nullptr, text_, options_);
    (void)whole.step();
    whole.save(state, "this run", "{\"step\": 0}\n");
    const std::string written = read_text(state);
    const std::string weights = "model.layers.1.mlp.up_proj.weight";
    Finetuner resumed(*model_, nullptr, text_, options_);
    const auto before = to_finite_floats(*resumed.model().checkpoint.find(weights));
    const auto expect_refused = [&](const std::string& content, const std::string& what) {
        write_text(state, content);
        EXPECT_THROW((void)resumed.restore(state, "this run"), Error) << what;
        EXPECT_EQ(resumed.steps_done(), 0) << what;
        EXPECT_EQ(to_finite_floats(*resumed.model().checkpoint.find(weights)), before) << what;
    };
    const std::size_t data = written.find("}}") + 2;
    for (std::size_t i = 0; i < 40; ++i) {
        const std::size_t at = data + i * (written.size() - 1 - data) / 39;  // the last ones are of the log
        std::string changed = written;
        changed[at] = static_cast<char>(changed[at] ^ 4);
        expect_refused(changed, "bit of byte " + std::to_string(at));
        expect_refused(written.substr(0, at), "cut at " + std::to_string(at));
    }
    std::string more_steps = written;
    more_steps[more_steps.find(R"("steps":"1")") + 9] = '2';
    expect_refused(more_steps, "steps");
    write_text(state, written);
    expect_error(ErrorCode::format, {"another run"}, [&] { (void)resumed.restore(state, "another"); });
    EXPECT_EQ(resumed.restore(state, "this run"), "{\"step\": 0}\n");
    EXPECT_EQ(resumed.steps_done(), 1);
}

/// Training on documents packed two to a sequence, and on one to a sequence of half the length, towards a teacher.
TEST_F(FinetuneTest, PackedDocumentsThatAreApartTrainAsIfEachWereAlone) {
    write_tiny_model(directory_ / "teacher", {.seed = 7});
    const Model teacher = Model::open(directory_ / "teacher");
    options_.loss = {0.5, 0.5, 0.1};
    options_.shuffle = false;
    options_.seq_len = kLength / 2;
    options_.batch = 8;
    Finetuner alone(*model_, &teacher, text_, options_);
    options_.seq_len = kLength;
    options_.batch = 4;
    options_.separate_documents = true;
    TrainingText packed_text = text_;
    for (std::int64_t t = 0; t < std::ssize(text_.ids); ++t) packed_text.starts.push_back(t % kLength == kLength / 2);
    Finetuner packed(*model_, &teacher, packed_text, options_);
    for (int step = 0; step < 3; ++step) {
        const StepReport a = alone.step(), b = packed.step();
        EXPECT_NEAR(b.loss, a.loss, 1e-5 * a.loss) << step;
        EXPECT_NEAR(b.gradient_norm, a.gradient_norm, 1e-3 * a.gradient_norm) << step;
    }
}

TEST_F(FinetuneTest, ALossThatIsNotFiniteLeavesTheWeights) {
    auto tensors = tiny_tensors();
    find_tensor(tensors, "model.norm.weight").values.assign(32, 3e38F);
    write_model(directory_ / "huge", tiny_config(), tensors);
    const Model huge = Model::open(directory_ / "huge");
    Finetuner finetuner(huge, nullptr, text_, options_);
    expect_error(ErrorCode::numeric, {"step 0: loss or gradient is not finite"}, [&] { (void)finetuner.step(); });
    EXPECT_EQ(finetuner.steps_done(), 0);
}

TEST_F(FinetuneTest, ABatchWithoutAnythingToPredictIsSaid) {
    text_.starts.assign(text_.ids.size(), 1);  // every token is a document
    Finetuner finetuner(*model_, nullptr, text_, options_);
    expect_error(ErrorCode::usage, {"step 0", "longer documents"}, [&] { (void)finetuner.step(); });
    EXPECT_EQ(finetuner.steps_done(), 0);
}

TEST_F(FinetuneTest, RefusesWhatItCannotTrain) {
    write_tiny_model(directory_ / "teacher", {.vocab = 32});
    const Model teacher = Model::open(directory_ / "teacher");
    expect_error(ErrorCode::usage, {"vocab_size"}, [&] { (void)Finetuner(*model_, &teacher, text_, options_); });
    text_.ids.resize(kLength - 1);
    expect_error(ErrorCode::usage, {"no whole sequence"}, [&] { (void)Finetuner(*model_, nullptr, text_, options_); });
    text_.ids.assign(2 * kLength, 1000);
    expect_error(ErrorCode::format, {"id 1000"}, [&] { (void)Finetuner(*model_, nullptr, text_, options_); });
}

TEST_F(FinetuneTest, DocumentsArePackedBehindBosWhoseDrawIsNotScored) {
    ModelConfig config = model_->config;
    config.bos_token_id = 1;
    const std::vector<std::vector<TokenId>> documents = {{5, 6, 7}, {}, {8, 9, 10, 11, 12}, {13}};
    const TrainingText text = pack_documents(config, documents, 5);
    EXPECT_EQ(text.ids, (std::vector<TokenId>{1, 5, 6, 7, 1, 1, 8, 9, 10, 11}));
    EXPECT_EQ(text.starts, (std::vector<char>{0, 0, 0, 0, 1, 0, 0, 0, 0, 0}));
    config.bos_token_id.reset();
    const TrainingText plain = pack_documents(config, documents, 3);
    EXPECT_EQ(plain.ids, (std::vector<TokenId>{5, 6, 7, 8, 9, 10, 11, 12, 13}));
    EXPECT_EQ(plain.starts, (std::vector<char>{1, 0, 0, 1, 0, 0, 0, 0, 1}));
}

}  // namespace
}  // namespace mha2mla::test
