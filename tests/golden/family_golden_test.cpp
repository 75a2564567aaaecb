// Logits of small random checkpoints of several shapes compared with those of transformers.
#include "mha2mla/runtime.hpp"
#include "support/shared.hpp"

namespace mha2mla::test {
namespace {

class FamilyGolden : public testing::TestWithParam<const char*> {};

TEST_P(FamilyGolden, LogitsEqualThoseOfTransformers) {
    const std::string folder = std::string("golden/") + GetParam();
    MHA2MLA_NEEDS_SHARED(folder);
    const auto expected_ids = read_json(shared(folder) / "expected.json").at("ids");
    const SafetensorsFile expected_file(shared(folder) / "expected.safetensors");
    const auto expected = read_floats(expected_file, "logits");
    std::vector<TokenId> ids;
    for (const auto& sequence : expected_ids) {
        for (const auto& id : sequence) ids.push_back(id.get<TokenId>());
    }
    const Model model = Model::open(shared(folder));
    Observer observer;
    const auto seq_len = static_cast<std::int64_t>(expected_ids.at(0).size());
    const Matrix result = logits(model, prefill(model, ids, seq_len, observer));
    const auto vocab = static_cast<std::size_t>(model.config.vocab_size);
    ASSERT_EQ(expected.size() * 4, static_cast<std::size_t>(result.size()));
    for (std::size_t row = 0; row < expected.size() / vocab; ++row) {  // recorded at every fourth position
        for (std::size_t i = 0; i < vocab; ++i) {
            ASSERT_NEAR(result(static_cast<Eigen::Index>(4 * row), static_cast<Eigen::Index>(i)),
                        expected[row * vocab + i], 2e-4)
                << "row " << row << ", token " << i;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyGolden, testing::ValuesIn(kFamilies), family_test_name);

}  // namespace
}  // namespace mha2mla::test
