// Decoding gives the logits of a prefill for every checkpoint, form of attention and division into pieces.
#include "mha2mla/session.hpp"

#include <cmath>
#include <random>

#include "mha2mla/convert.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/threads.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

std::vector<TokenId> random_ids(const Model& model, std::int64_t count) {
    std::mt19937 random(5);
    std::vector<TokenId> ids(static_cast<std::size_t>(count));
    for (auto& id : ids) id = static_cast<TokenId>(random() % static_cast<unsigned>(model.config.vocab_size));
    return ids;
}

/// The logits of all tokens, processed by a session in pieces of `step` tokens.
Matrix logits_in_steps(const Model& model, std::span<const TokenId> ids, std::int64_t step,
                       const SessionOptions& options) {
    SessionOptions with_room = options;
    with_room.capacity = static_cast<std::int64_t>(ids.size());
    Session session(model, with_room);
    Matrix hidden(static_cast<Eigen::Index>(ids.size()), model.config.hidden_size);
    for (std::size_t first = 0; first < ids.size(); first += static_cast<std::size_t>(step)) {
        const auto part = ids.subspan(first, std::min(static_cast<std::size_t>(step), ids.size() - first));
        const Piece piece{0, part};
        hidden.middleRows(static_cast<Eigen::Index>(first), static_cast<Eigen::Index>(part.size())) =
            session.advance({&piece, 1});
    }
    return logits(model, hidden);
}

float difference(const Matrix& a, const Matrix& b) { return (a - b).cwiseAbs().maxCoeff(); }

float mean_difference(const Matrix& a, const Matrix& b) { return (a - b).cwiseAbs().mean(); }

/// Compares prefill with a session, token by token and in blocks, in all forms.
void expect_decode_equals_prefill(const Model& model, std::int64_t count) {
    Observer observer;
    const auto ids = random_ids(model, count);
    const Matrix expected = logits(model, prefill(model, ids, count, observer));
    for (const auto form : {AttentionForm::cheaper, AttentionForm::absorbed, AttentionForm::expanded}) {
        for (const std::int64_t step : {std::int64_t{1}, std::int64_t{7}, count}) {
            SessionOptions options;
            options.form = form;
            EXPECT_LT(difference(logits_in_steps(model, ids, step, options), expected), 1e-4F)
                << "form " << static_cast<int>(form) << ", step " << step;
        }
    }
}

class FamilyDecode : public testing::TestWithParam<const char*> {};

TEST_P(FamilyDecode, OriginalAndConvertedEqualPrefill) {
    const std::string folder = std::string("golden/") + GetParam();
    MHA2MLA_NEEDS_SHARED(folder);
    const Model model = Model::open(shared(folder));
    expect_decode_equals_prefill(model, 40);
    const TemporaryDirectory directory;
    Observer observer;
    StagedPlan stages;
    stages.rope = {"uniform", model.config.head_dim / 2, 0};
    stages.kv_rank = default_kv_rank(model.config);
    (void)convert(model, directory.path() / "out", {stages}, {}, observer);
    expect_decode_equals_prefill(Model::open(directory.path() / "out"), 40);
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyDecode, testing::ValuesIn(kFamilies), family_test_name);

/// A tiny model with biases, and its conversions.
class Decode : public testing::Test {
protected:
    Decode() { write_tiny_model(directory_ / "model", {.attention_bias = true}); }
    [[nodiscard]] Model original() const { return Model::open(directory_ / "model"); }
    [[nodiscard]] Model converted(Factorization factorization, std::int64_t rope_dim, std::int64_t kv_rank) const {
        const auto name = std::string(row_of(factorization).name) + std::to_string(rope_dim);
        StagedPlan stages;
        stages.rope = {"uniform", rope_dim, 0};
        stages.kv_rank = kv_rank;
        stages.factorization = factorization;
        Observer observer;
        const CalibrationStats stats =
            calibrate(original(), random_ids(original(), 128), 32, observer,
                      {.max_memory = 0, .spill_directory = {}, .inputs = CalibrationOptions::Inputs::moments});
        (void)convert(original(), directory_ / name, {stages}, {nullptr, stats.inputs.get()}, observer);
        return Model::open(directory_ / name);
    }
    TemporaryDirectory directory_;
};

TEST_F(Decode, EveryFactorizationEqualsPrefill) {
    for (const auto& row : kFactorizations) {
        SCOPED_TRACE(row.name);
        expect_decode_equals_prefill(converted(row.factorization, 4, 4), 50);
    }
    expect_decode_equals_prefill(converted(Factorization::joint, 0, 8), 50);
    expect_decode_equals_prefill(converted(Factorization::joint, 8, 6), 50);  // all of a key is rotated
}

TEST_F(Decode, LongContextsAreSplitAndPutTogether) {
    write_tiny_model(directory_ / "long", {.layers = 1});
    const Model model = Model::open(directory_ / "long");
    Observer observer;
    const auto ids = random_ids(model, 1400);
    const Matrix expected = logits(model, prefill(model, ids, 1400, observer));
    SessionOptions options;
    options.capacity = 1400;
    Session session(model, options);
    const std::span<const TokenId> all(ids);
    const Piece most{0, all.first(1397)};
    const Matrix head = logits(model, session.advance({&most, 1}));
    EXPECT_LT(difference(head, expected.topRows(1397)), 1e-4F);
    const Piece rest{0, all.last(3)};
    EXPECT_LT(difference(logits(model, session.advance({&rest, 1})), expected.bottomRows(3)), 1e-4F);
}

TEST_F(Decode, BlocksOfAQuantizedCacheEqualTokenByToken) {
    for (const Model& model : {original(), converted(Factorization::joint, 4, 4)}) {
        const auto ids = random_ids(model, 90);
        SessionOptions bf16;
        bf16.cache = {KvCacheFormat::bf16, 8, 0};
        const float bf16_loss =
            mean_difference(logits_in_steps(model, ids, 1, bf16), logits_in_steps(model, ids, 1, {}));
        for (const auto& format : kKvCacheFormats) {
            for (const std::int64_t window : {0, 1, 24}) {
                SessionOptions options;
                options.cache = {format.format, 8, window};
                const Matrix expected = logits_in_steps(model, ids, 1, options);
                const float loss = mean_difference(expected, logits_in_steps(model, ids, 1, {}));
                EXPECT_EQ(loss > 0.0F, format.bits < 32) << format.name;
                for (const auto form : {AttentionForm::absorbed, AttentionForm::expanded}) {
                    options.form = form;
                    // Blocks sum in another order, so a number between two codes may be rounded differently, or HQQ may
                    // end a round earlier. With a wrong division into window and codes the difference would be that of
                    // the format.
                    // The absorbed form may multiply BF16 rows as BF16, the expanded one does not.
                    const bool bf16_rows = format.format == KvCacheFormat::bf16 || (window > 0 && format.bits < 16);
                    const float arithmetic = form == AttentionForm::expanded && bf16_rows ? bf16_loss : 0.0F;
                    const float apart = mean_difference(logits_in_steps(model, ids, 37, options), expected);
                    EXPECT_LT(apart, 0.3F * loss + arithmetic + 1e-5F) << format.name << ", window " << window;
                }
            }
        }
    }
}

TEST_F(Decode, NothingIsQuantizedWithinTheWindow) {
    const Model model = original();
    const auto ids = random_ids(model, 60);
    SessionOptions narrow, bf16;
    narrow.cache = {KvCacheFormat::int2_affine, 64, 60};
    bf16.cache = {KvCacheFormat::bf16, 64, 0};
    EXPECT_EQ(difference(logits_in_steps(model, ids, 1, narrow), logits_in_steps(model, ids, 1, bf16)), 0.0F);
    narrow.cache.window = 59;
    EXPECT_GT(difference(logits_in_steps(model, ids, 1, narrow), logits_in_steps(model, ids, 1, bf16)), 0.0F);
}

TEST_F(Decode, SequencesDoNotDisturbEachOther) {
    const Model model = converted(Factorization::split, 4, 4);
    const auto ids = random_ids(model, 64);
    const std::span<const TokenId> all(ids);
    SessionOptions options;
    options.cache = {KvCacheFormat::int4_hqq, 8, 5};
    const Matrix alone = logits_in_steps(model, all.first(30), 1, options);
    options.sequences = 3;
    options.capacity = 64;
    Session session(model, options);
    const Piece start{0, all.first(20)};
    (void)session.advance({&start, 1});
    session.fork(0, 2);
    const std::vector<Piece> both = {{1, all.last(33)}, {0, all.subspan(40, 9)}, {2, all.subspan(20, 10)}};
    const Matrix hidden = session.advance(both);
    EXPECT_EQ(session.length(0), 29);
    EXPECT_EQ(session.length(1), 33);
    EXPECT_EQ(session.length(2), 30);
    EXPECT_LT(difference(logits(model, hidden.bottomRows(10)), alone.bottomRows(10)), 5e-2F);
    session.clear(1);
    EXPECT_EQ(session.length(1), 0);
}

TEST_F(Decode, ResultsDoNotDependOnThreads) {
    const Model model = converted(Factorization::joint, 4, 4);
    const auto ids = random_ids(model, 70);
    SessionOptions options;
    options.cache = {KvCacheFormat::int4_hqq, 8, 5};
    const auto run = [&](int threads, std::int64_t step) {
        const ThreadScope scope(threads);
        return logits_in_steps(model, ids, step, options);
    };
    EXPECT_EQ(difference(run(1, 1), run(2, 1)), 0.0F);
    EXPECT_EQ(difference(run(1, 33), run(2, 33)), 0.0F);
}

TEST_F(Decode, AllocatedBytesAreThePlans) {
    for (const Model& model : {original(), converted(Factorization::joint, 4, 4)}) {
        SessionOptions options;
        options.cache.format = KvCacheFormat::bf16;
        options.capacity = 100;
        options.sequences = 2;
        const KvCacheSize size = Session(model, options).cache_size();
        EXPECT_EQ(size.allocated, static_cast<std::uint64_t>(2 * 100 * 2 * cache_numbers_per_token(model.config)));
        EXPECT_EQ(size.bytes_per_token, size.nominal_bytes_per_token);
        EXPECT_EQ(size.window, 0U);
    }
}

TEST_F(Decode, ScalesOfGroupsOf64AddAnEighthToFourBits) {
    write_tiny_model(directory_ / "wide", {.hidden = 128, .heads = 4, .kv_heads = 4, .head_dim = 32});
    const Model model = Model::open(directory_ / "wide");
    SessionOptions options;
    options.cache.format = KvCacheFormat::int4_hqq;
    options.capacity = 20000;
    const KvCacheSize size = Session(model, options).cache_size();
    EXPECT_EQ(size.bytes_per_token, size.nominal_bytes_per_token * 1.125);
    EXPECT_LT(static_cast<double>(size.allocated), 1.15 * 20000 * size.nominal_bytes_per_token);
}

TEST_F(Decode, ImpossibleSessionsSayWhy) {
    const Model model = original();
    expect_error(ErrorCode::usage, {"sequences", "GB", "available", "shorter prompt"}, [&] {
        SessionOptions options;
        options.capacity = std::int64_t{1} << 40;
        const Session session(model, options);
    });
    SessionOptions options;
    options.capacity = 4;
    Session session(model, options);
    const std::vector<TokenId> five = {1, 2, 3, 4, 5};
    const std::vector<TokenId> foreign = {1, 64};
    const auto advance = [&](std::vector<Piece> pieces) { return [&, pieces] { (void)session.advance(pieces); }; };
    expect_error(ErrorCode::usage, {"5 tokens", "capacity of 4"}, advance({{0, five}}));
    expect_error(ErrorCode::format, {"id 64", "vocab_size is 64"}, advance({{0, foreign}}));
    expect_error(ErrorCode::usage, {"sequence 1 of 1"}, advance({{1, foreign}}));
    options.cache.group_size = 0;
    expect_error(ErrorCode::usage, {"groups"}, [&] { const Session none(model, options); });
}

}  // namespace
}  // namespace mha2mla::test
