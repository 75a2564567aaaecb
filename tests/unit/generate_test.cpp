// Sampling tokens, streaming text, and reading multiple-choice data sets.
#include "mha2mla/generate.hpp"

#include <cmath>
#include <map>

#include "forward/quantize.hpp"
#include "mha2mla/choices.hpp"
#include "mha2mla/runtime.hpp"
#include "support/expect_error.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

std::map<TokenId, int> draws(SamplingOptions options, const std::vector<float>& logits, int count) {
    Sampler sampler(options);
    std::map<TokenId, int> seen;
    for (int i = 0; i < count; ++i) ++seen[sampler.next(logits)];
    return seen;
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
    Sampler sampler({});
    EXPECT_EQ(sampler.next(std::vector<float>{1, 3, 3, 2}), 1);
    expect_error(ErrorCode::numeric, {"not a number"}, [&] {
        (void)sampler.next(std::vector<float>{0, std::nanf("")});
    });
}

TEST(Sampler, DrawsFollowTheSoftmax) {
    const std::vector<float> logits = {std::log(1.0F), std::log(2.0F), std::log(5.0F)};
    const auto seen = draws({.temperature = 1, .seed = 7}, logits, 8000);
    EXPECT_NEAR(seen.at(0), 1000, 120);
    EXPECT_NEAR(seen.at(1), 2000, 160);
    EXPECT_NEAR(seen.at(2), 5000, 200);
    EXPECT_NEAR(draws({.temperature = 0.5, .seed = 7}, logits, 8000).at(2), 8000 * 25 / 30, 200);
    EXPECT_EQ(draws({.temperature = 1, .seed = 7}, logits, 50), draws({.temperature = 1, .seed = 7}, logits, 50));
}

TEST(Sampler, TopKAndTopPKeepTheMostLikely) {
    const std::vector<float> logits = {std::log(1.0F), std::log(2.0F), std::log(5.0F)};
    EXPECT_EQ(draws({.temperature = 1, .top_k = 2}, logits, 400).count(0), 0U);
    EXPECT_EQ(draws({.temperature = 1, .top_p = 0.8}, logits, 400).count(0), 0U);  // 5/8 + 2/8 reach 0.8
    EXPECT_EQ(draws({.temperature = 1, .top_p = 0.6}, logits, 400).at(2), 400);    // 5/8 alone reaches 0.6
    EXPECT_EQ(draws({.temperature = 1, .top_p = 0.9}, logits, 4000).count(0), 1U);
    expect_error(ErrorCode::usage, {"top-p"}, [] { const Sampler sampler({.top_p = 0}); });
    expect_error(ErrorCode::usage, {"temperature"}, [] { const Sampler sampler({.temperature = -1}); });
}

TEST(TextStream, ReturnsCompleteCharactersOnce) {
    const auto tokenizer = Tokenizer::load(example("kjv-1.8M/tokenizer.json"));
    std::string text = "And it came to pass € 漢字 😀 ";
    for (int i = 0; i < 5; ++i) text += text.substr(0, 200);  // longer than the context of the stream
    const auto ids = tokenizer.encode(text, false);
    TextStream stream(tokenizer, {});
    std::string said;
    for (const auto id : ids) {
        const std::string part = stream.add(id);
        EXPECT_EQ(whole_characters(part), part.size());
        said += part;
    }
    EXPECT_EQ(said + stream.finish(), text);
    const auto euro = tokenizer.encode("€", false);
    ASSERT_GT(euro.size(), 1U);
    TextStream cut(tokenizer, {});
    EXPECT_EQ(cut.add(euro[0]), "");
    EXPECT_EQ(cut.finish(), "\xEF\xBF\xBD");
}

TEST(WholeCharacters, StopsBeforeAnIncompleteCharacter) {
    EXPECT_EQ(whole_characters("a\xE2\x82"), 1U);
    EXPECT_EQ(whole_characters("a\xE2\x82\xAC"), 4U);
    EXPECT_EQ(whole_characters("\xF0\x9F\x98"), 0U);
    EXPECT_EQ(whole_characters("\x80\x80\x80\x80"), 4U);  // no character begins there
}

double error(const std::vector<float>& x, int bits, Quantizer quantizer) {
    std::vector<std::uint8_t> codes(x.size());
    const GroupScale scale =
        quantize_group(x.data(), static_cast<std::int64_t>(x.size()), bits, quantizer, codes.data());
    float decoded[2];
    const std::uint16_t halves[2] = {scale.step, scale.offset};
    for (int i = 0; i < 2; ++i)
        decoded[i] = static_cast<float>(std::ldexp(halves[i] & 0x3FFU, -10) + 1) *
                     std::ldexp(1.0F, static_cast<int>(halves[i] >> 10U & 31U) - 15) *
                     ((halves[i] & 0x8000U) != 0 ? -1.0F : 1.0F);
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        EXPECT_LT(codes[i], 1U << static_cast<unsigned>(bits));
        sum += std::abs(x[i] - (static_cast<float>(codes[i]) * decoded[0] + decoded[1]));
    }
    return sum / static_cast<double>(x.size());
}

TEST(Quantize, HqqIsAtLeastAsCloseOnSkewedNumbers) {
    std::vector<float> x(64);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::exp(static_cast<float>(i % 17) / 4.0F) - 3.0F;
    for (const int bits : {2, 4, 8}) {
        const double range = std::exp(4.0) - 1.0;
        EXPECT_LT(error(x, bits, Quantizer::affine), range / ((1 << bits) - 1) / 2 + 0.02);
        EXPECT_LE(error(x, bits, Quantizer::hqq), error(x, bits, Quantizer::affine) + 0.005);
    }
    EXPECT_LT(error(x, 2, Quantizer::hqq), 0.95 * error(x, 2, Quantizer::affine));
}

ChoiceItem one(const char* task, const std::string& line) {
    const TemporaryDirectory directory;
    write_text(directory / "data.jsonl", line + "\n\n");
    for (const auto& row : choice_tasks()) {
        if (row.name == task) return read_choices(directory / "data.jsonl", row).at(0);
    }
    throw std::runtime_error("no such task");
}

TEST(Choices, ReadersMakeLightevalsPrompts) {
    using Texts = std::vector<std::string>;
    auto item = one(
        "hellaswag",
        R"({"activity_label":"Baking","ctx_a":"A man [header] mixes.","ctx_b":"the Dough","endings":["rises [step] high.","falls  down."],"label":"1"})");
    EXPECT_EQ(item.query, "Baking: A man mixes. The dough ");
    EXPECT_EQ(item.choices, (Texts{"rises high.", "falls down."}));
    EXPECT_EQ(item.gold, 1);
    item = one("piqa", R"({"goal":"Open it","sol1":"Push","sol2":"Pull","label":0})");
    EXPECT_EQ(item.query, "Question: Open it\nAnswer:");
    EXPECT_EQ(item.choices, (Texts{" Push", " Pull"}));
    item = one("arc", R"({"question":"Why?","choices":{"text":["x","y"],"label":["1","2"]},"answerKey":"2"})");
    EXPECT_EQ(item.query, "Question: Why?\nAnswer:");
    EXPECT_EQ(item.gold, 1);
    // The form in which AI2 published ARC and OpenBookQA.
    const std::string published =
        R"({"id":"q1","question":{"stem":"Why?","choices":[{"text":"x","label":"A"},{"text":"y","label":"B"}]},"answerKey":"B"})";
    item = one("arc", published);
    EXPECT_EQ(item.query, "Question: Why?\nAnswer:");
    EXPECT_EQ(item.choices, (Texts{" x", " y"}));
    EXPECT_EQ(item.gold, 1);
    item = one("openbookqa", published);
    EXPECT_EQ(item.query, "Why?");
    EXPECT_EQ(item.choices, (Texts{" x", " y"}));
    item = one("openbookqa",
               R"({"question_stem":"The sun","choices":{"text":["x","y"],"label":["A","B"]},"answerKey":"B"})");
    EXPECT_EQ(item.query, "The sun");
    EXPECT_EQ(item.choices, (Texts{" x", " y"}));
    item = one("winogrande", R"({"sentence":"Ann saw _ go.","option1":"Bo","option2":"Cy","answer":"2"})");
    EXPECT_EQ(item.query, "Ann saw ");
    EXPECT_EQ(item.choices, (Texts{"Bo go.", "Cy go."}));
    EXPECT_EQ(item.gold, 1);
    item = one("mmlu", R"({"subject":"high_school_physics","question":"g?","choices":["1","9.8"],"answer":1})");
    EXPECT_EQ(item.query, "The following are questions about high school physics.\nQuestion: g?\nAnswer:");
    EXPECT_EQ(item.choices, (Texts{" 1", " 9.8"}));
    expect_error(ErrorCode::format, {"line 1", "piqa needs", "sol1"}, [] { (void)one("piqa", R"({"goal":"a"})"); });
    expect_error(ErrorCode::format, {"not among the 2"},
                 [] { (void)one("items", R"({"query":"a","choices":["b","c"],"gold":2})"); });
}

TEST(Choices, LogLikelihoodsAreThoseOfTheWholeTexts) {
    const Model model = Model::open(example("kjv-1.8M"));
    const auto tokenizer = Tokenizer::load(example("kjv-1.8M/tokenizer.json"));
    const std::vector<ChoiceItem> items = {{"And God said, Let there be ", {"light: and there was", "no"}, 0}};
    Observer observer;
    const auto result = score_choices(model, tokenizer, items, {}, observer);
    ASSERT_EQ(result.log_likelihoods.size(), 1U);
    const auto query = tokenizer.encode("And God said, Let there be", false);
    for (std::size_t c = 0; c < 2; ++c) {
        const auto ids = tokenizer.encode(items[0].query + items[0].choices[c], false);
        Matrix scores = logits(model, prefill(model, ids, static_cast<std::int64_t>(ids.size()), observer));
        double expected = 0;
        for (std::size_t t = query.size(); t < ids.size(); ++t) {
            const auto row = scores.row(static_cast<Eigen::Index>(t - 1)).cast<double>();
            expected += row(ids[t]) - std::log(row.array().exp().sum());
        }
        EXPECT_NEAR(result.log_likelihoods[0][c], expected, 1e-3);
    }
    EXPECT_EQ(result.summed.standard_error, 0.0);
    const std::vector<ChoiceItem> empty = {{"And", {" it", ""}, 0}};
    expect_error(ErrorCode::format, {"question 1", "choice 2", "no tokens of its own"},
                 [&] { (void)score_choices(model, tokenizer, empty, {}, observer); });
}

/// The log-likelihood of the tokens from `scored` on.
double log_likelihood(const Model& model, std::span<const TokenId> ids, std::size_t scored) {
    Observer observer;
    const auto seen = ids.first(ids.size() - 1);
    const Matrix scores = logits(model, prefill(model, seen, std::ssize(seen), observer));
    double sum = 0;
    for (std::size_t t = scored; t < ids.size(); ++t) {
        const auto row = scores.row(static_cast<Eigen::Index>(t - 1)).cast<double>();
        sum += row(ids[t]) - std::log(row.array().exp().sum());
    }
    return sum;
}

TEST(Choices, ATokenOfQueryAndChoiceIsTheChoices) {
    const Model model = Model::open(example("kjv-1.8M"));
    const auto tokenizer = Tokenizer::load(example("kjv-1.8M/tokenizer.json"));
    const std::string query = "And God said, Let the";
    Observer observer;
    const auto result =
        score_choices(model, tokenizer, std::vector<ChoiceItem>{{query, {"re", "m go"}, 0}}, {}, observer);
    const auto alone = tokenizer.encode(query, false), merged = tokenizer.encode(query + "re", false);
    ASSERT_EQ(alone.size(), merged.size()) << "the test needs a word that becomes one token";
    EXPECT_NEAR(result.log_likelihoods[0][0], log_likelihood(model, merged, merged.size() - 1), 1e-3);
    const auto longer = tokenizer.encode(query + "m go", false);
    EXPECT_NEAR(result.log_likelihoods[0][1], log_likelihood(model, longer, alone.size()), 1e-3);
    EXPECT_EQ(result.truncated, 0);
    // One token alone is predicted by BOS, or not at all.
    const std::vector<ChoiceItem> first = {{"the", {"re", "m go"}, 0}};
    if (model.config.bos_token_id) {
        EXPECT_LT(score_choices(model, tokenizer, first, {}, observer).log_likelihoods[0][0], 0);
    } else {
        expect_error(ErrorCode::format, {"question 1", "choice 1", "bos_token_id"},
                     [&] { (void)score_choices(model, tokenizer, first, {}, observer); });
    }
}

TEST(Choices, OfALongQuestionTheEndIsScored) {
    Model model = Model::open(example("kjv-1.8M"));
    const auto tokenizer = Tokenizer::load(example("kjv-1.8M/tokenizer.json"));
    model.config.max_position_embeddings = 40;
    std::string query;
    for (int i = 0; i < 9; ++i) query += "And God saw every thing that he had made, and, behold, ";
    query += "it was very";
    const std::vector<ChoiceItem> items = {{query, {" good and the evening and the morning", " bad"}, 0},
                                           {"it was very", {" good", " bad"}, 0}};
    Observer observer;
    const auto result = score_choices(model, tokenizer, items, {}, observer);
    EXPECT_EQ(result.truncated, 1);
    const auto alone = tokenizer.encode(query, false);
    for (std::size_t c = 0; c < 2; ++c) {
        auto ids = tokenizer.encode(query + items[0].choices[c], false);
        const std::size_t left_out = ids.size() - 41;
        ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(left_out));
        EXPECT_NEAR(result.log_likelihoods[0][c], log_likelihood(model, ids, alone.size() - left_out), 1e-3) << c;
    }
    model.config.max_position_embeddings = 3;
    expect_error(ErrorCode::format, {"question 1", "choice 1", "3 positions"},
                 [&] { (void)score_choices(model, tokenizer, items, {}, observer); });
}

}  // namespace
}  // namespace mha2mla::test
