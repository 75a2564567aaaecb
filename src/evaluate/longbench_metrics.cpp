#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include "mha2mla/error.hpp"
#include "mha2mla/longbench.hpp"
#include "python_text.hpp"
#include "rouge_l.hpp"
#include "sequence_matcher.hpp"

namespace mha2mla {
namespace {

using Text = std::u32string;
using TextView = std::u32string_view;

/// The words of an answer: lower case, without ASCII punctuation and articles.
std::vector<Text> words_of_answer(TextView answer) {
    static constexpr TextView kPunctuation = U"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
    Text text = python::lower(answer);
    std::erase_if(text, [](char32_t c) { return kPunctuation.find(c) != TextView::npos; });
    Text kept;
    for (auto at = text.begin(); at != text.end();) {
        const auto end = std::find_if_not(at, text.end(), python::is_word);
        const TextView word(at, end);
        if (word == U"a" || word == U"an" || word == U"the") {
            kept += U' ';
        } else {
            kept += word;
        }
        at = std::find_if(end, text.end(), python::is_word);
        kept.append(end, at);
    }
    return python::split(kept);
}

/// The F1 of the words of both, counted as often as they occur.
double qa_f1(TextView prediction, TextView answer) {
    const auto predicted = words_of_answer(prediction);
    const auto wanted = words_of_answer(answer);
    std::map<Text, std::int64_t> left;
    for (const auto& word : wanted) ++left[word];
    const auto same = std::count_if(predicted.begin(), predicted.end(), [&](const Text& word) {
        const auto found = left.find(word);
        return found != left.end() && found->second-- > 0;
    });
    if (same == 0) return 0;
    const double precision = static_cast<double>(same) / static_cast<double>(predicted.size());
    const double recall = static_cast<double>(same) / static_cast<double>(wanted.size());
    return 2 * precision * recall / (precision + recall);
}

/// Whether `text` holds `part`, in a time that is the sum of their lengths.
bool holds(TextView text, TextView part) {
    if (part.empty()) return true;
    while (!text.empty()) {
        const auto* begin = reinterpret_cast<const char*>(text.data());
        const void* found =
            ::memmem(begin, text.size() * sizeof(char32_t), part.data(), part.size() * sizeof(char32_t));
        if (found == nullptr) return false;
        const auto at = static_cast<std::size_t>(static_cast<const char*>(found) - begin);
        if (at % sizeof(char32_t) == 0) return true;
        text.remove_prefix(at / sizeof(char32_t) + 1);
    }
    return false;
}

/// One over the number of classes that the prediction names, if the right one is among them. LongBench leaves out those
/// that are a part of the right one, but removes them from the list that it walks: the one after a removed one stays.
double classification(TextView prediction, TextView answer, const std::vector<Text>& classes) {
    std::vector<TextView> named;
    for (const auto& name : classes) {
        if (holds(prediction, name)) named.emplace_back(name);
    }
    for (std::size_t i = 0; i < named.size(); ++i) {
        const TextView name = named[i];
        if (name == answer || !holds(answer, name)) continue;
        named.erase(std::find(named.begin(), named.end(), name));
    }
    const bool right = std::find(named.begin(), named.end(), answer) != named.end();
    return right ? 1.0 / static_cast<double>(named.size()) : 0;
}

/// The share of the numbers in the prediction that are the right one, compared as text.
double share_of_numbers(TextView prediction, TextView number) {
    const auto numbers = python::numbers_in(prediction);
    if (numbers.empty()) return 0;
    const auto right = std::count(numbers.begin(), numbers.end(), number);
    return static_cast<double>(right) / static_cast<double>(numbers.size());
}

/// "Paragraph 12" names the right one.
double retrieval(TextView prediction, TextView answer) {
    constexpr TextView kBefore = U"Paragraph ";
    for (std::size_t at = 0; (at = answer.find(kBefore, at)) != TextView::npos; ++at) {
        const TextView behind = answer.substr(at + kBefore.size());
        const auto end = std::find_if_not(behind.begin(), behind.end(), python::is_digit);
        if (end != behind.begin()) return share_of_numbers(prediction, TextView(behind.begin(), end));
    }
    throw Error(ErrorCode::format, "an answer does not say 'Paragraph' and a number");
}

/// The similarity of the first line of code, in whole percent: that of fuzz.ratio of fuzzywuzzy.
double code_similarity(TextView prediction, TextView answer) {
    prediction.remove_prefix(std::min(prediction.find_first_not_of(U'\n'), prediction.size()));
    Text line;
    for (auto& candidate : python::split_at(prediction, U'\n')) {
        const bool is_comment = candidate.find(U'`') != Text::npos || candidate.find(U'#') != Text::npos ||
                                candidate.find(U"//") != Text::npos;
        if (is_comment) continue;
        line = std::move(candidate);
        break;
    }
    if (line == answer) return 1;
    if (line.empty() || answer.empty()) return 0;
    return std::nearbyint(100 * sequence_ratio(line, answer)) / 100;  // halves to even
}

double score(LongbenchMetric metric, TextView prediction, TextView answer, const std::vector<Text>& classes) {
    switch (metric) {
        case LongbenchMetric::qa_f1:
            return qa_f1(prediction, answer);
        case LongbenchMetric::rouge_l:
            return rouge_l(prediction, answer);
        case LongbenchMetric::classification:
            return classification(prediction, answer, classes);
        case LongbenchMetric::retrieval:
            return retrieval(prediction, answer);
        case LongbenchMetric::count:
            return share_of_numbers(prediction, answer);
        case LongbenchMetric::code_similarity:
            return code_similarity(prediction, answer);
    }
    return 0;
}

}  // namespace

double longbench_score(const LongbenchPrediction& prediction) {
    const LongbenchTask& task = *prediction.task;
    Text text = python::decode(prediction.pred);
    if (task.first_line_only) {
        text.erase(0, std::min(text.find_first_not_of(U'\n'), text.size()));
        text.resize(std::min(text.find(U'\n'), text.size()));
    }
    std::vector<Text> classes;
    for (const auto& name : prediction.all_classes) classes.push_back(python::decode(name));
    double best = 0;
    for (const auto& answer : prediction.answers) {
        best = std::max(best, score(task.metric, text, python::decode(answer), classes));
    }
    return best;
}

}  // namespace mha2mla
