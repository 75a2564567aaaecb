// Other programs load what is written in DeepSeek's layout, and compute the same with it.
#include <cstdlib>

#include "mha2mla/align.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/windows.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

struct Form {
    const char* name;
    const char* checkpoint;
    RopeFrequencies frequencies = RopeFrequencies::engine;
    SharedKeyBasis basis = SharedKeyBasis::balanced;
    LatentNorm latent_norm = LatentNorm::identity;
    Dtype dtype = Dtype::f32;
    bool pad = false, without_bias = false;
};
class EngineGolden : public testing::TestWithParam<Form> {};

TEST_P(EngineGolden, TransformersComputesTheSameLogits) {
    const std::string folder = std::string("golden/") + GetParam().checkpoint;
    MHA2MLA_NEEDS_SHARED(folder);
    MHA2MLA_NEEDS_DOWNLOAD("venv/requirements");
    constexpr std::int64_t kLength = 24, kCalibration = 40;
    const Model source = Model::open(shared(folder));
    std::vector<TokenId> calibration, ids;
    for (std::int64_t i = 0; i < 8 * kCalibration; ++i) {
        calibration.push_back(static_cast<TokenId>((i * i * 7 + 3 * i) % source.config.vocab_size));
    }
    nlohmann::json rows = nlohmann::json::array();
    for (std::int64_t row = 0; row < 2; ++row) {
        for (std::int64_t i = 0; i < kLength; ++i) {
            ids.push_back(static_cast<TokenId>((i * 31 + row * 17 + i * i) % source.config.vocab_size));
        }
        rows.push_back(std::vector<TokenId>(ids.end() - kLength, ids.end()));
    }
    const TemporaryDirectory directory;
    const std::int64_t keys = source.config.num_key_value_heads * source.config.head_dim;
    const bool published = GetParam().basis != SharedKeyBasis::balanced;
    const AlignRequest request{
        {0, published ? source.config.head_dim / 2 : keys / 4 * 2, keys / 2,
         AlignQuality{"", published ? 0 : 3, 4 * kCalibration, ""}, &deepseek_layout(), GetParam().frequencies,
         GetParam().basis, GetParam().latent_norm, GetParam().pad, GetParam().without_bias},
        8,
        kCalibration};
    Observer observer;
    Aligner aligner(source, calibration, kCalibration, request.options, observer);
    (void)convert(source, directory / "out", {request, GetParam().dtype}, {nullptr, nullptr, &aligner}, observer);
    const Model converted = Model::open(directory / "out");
    const Matrix expected = logits(converted, prefill(converted, ids, kLength, observer));

    write_file_atomically(directory / "ids.json", rows.dump());
    const auto quoted = [](const std::filesystem::path& path) { return " '" + path.string() + "'"; };
    const std::string command = quoted(downloaded("venv/bin/python")).substr(1) +
                                quoted(std::filesystem::path(MHA2MLA_GOLDEN_TESTS_DIR) / "transformers_logits.py") +
                                quoted(directory / "out") + " DeepseekV3ForCausalLM" + quoted(directory / "ids.json") +
                                quoted(directory / "logits.safetensors");
    ASSERT_EQ(std::system(command.c_str()), 0);
    const auto theirs = read_floats(SafetensorsFile(directory / "logits.safetensors"), "logits");
    ASSERT_EQ(theirs.size(), static_cast<std::size_t>(expected.size()));
    const Eigen::Map<const Matrix> other(theirs.data(), expected.rows(), expected.cols());
    EXPECT_LT((other - expected).cwiseAbs().maxCoeff(), 1e-4F * expected.cwiseAbs().maxCoeff());
}

constexpr Form kForms[] = {
    {"BF16ToF32", "families/llama-gqa-untied-bf16"},
    {"Biases", "families/llama-mqa-bias-f32"},  // of queries, keys, values and outputs
    {"Llama3Scaling", "families/llama3-rope-scaling"},
    {"TiedWithHeadDim", "families5/llama-headdim"},  // not hidden/heads
    {"SharedFrequencies", "families/llama3-rope-scaling", RopeFrequencies::shared},
    {"Transmla", "families/llama-gqa-untied-bf16", RopeFrequencies::engine, SharedKeyBasis::transmla},
    {"ConstantChannel", "families/llama-gqa-untied-bf16", RopeFrequencies::engine, SharedKeyBasis::balanced,
     LatentNorm::constant},
    {"ConstantChannelAndBiasesInF16", "families/llama-mqa-bias-f32", RopeFrequencies::engine, SharedKeyBasis::balanced,
     LatentNorm::constant, Dtype::f16},
    {"TrainedNorm", "families/llama-gqa-untied-bf16", RopeFrequencies::engine, SharedKeyBasis::balanced,
     LatentNorm::trained},
    {"TrainedNormAndBiasesFolded", "families/qwen2", RopeFrequencies::engine, SharedKeyBasis::balanced,
     LatentNorm::trained, Dtype::f16, false, true},
    {"Padded", "families/llama-mha-tied-f16", RopeFrequencies::engine, SharedKeyBasis::balanced, LatentNorm::identity,
     Dtype::f32, true},
    {"PaddedWithTrainedNorm", "families/llama-mha-tied-f16", RopeFrequencies::engine, SharedKeyBasis::balanced,
     LatentNorm::trained, Dtype::f32, true},
    {"InterleavedHeads", "families5/helium"},
    {"FusedRows", "families/phi3"},
    {"FusedRowsWithPartialRotary", "families5/phi3-partial"},
    {"Qwen2", "families5/qwen2"},
    {"Mistral", "families/mistral"},
    {"TransmlaV1", "families/llama-gqa-untied-bf16", RopeFrequencies::engine, SharedKeyBasis::replicated},
};
INSTANTIATE_TEST_SUITE_P(Forms, EngineGolden, testing::ValuesIn(kForms),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(EngineGolden, BiasesThatTheirClassHasNotAreRefusedBeforeAnyWork) {
    const Model source = Model::open(shared("golden/families5/llama-bias-llama3"));
    const AlignRequest request{{0.5, {}, {}, {"", 1, 64, ""}, &deepseek_layout()}, 1, 64};
    const TemporaryDirectory directory;
    expect_error(ErrorCode::unsupported, {"MLP", "layout mha2mla"},
                 [&] { const ConversionJob job(source, directory / "out", {request}); });
}

}  // namespace
}  // namespace mha2mla::test
