#include "rouge_l.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "python_text.hpp"
#include "text_work.hpp"

namespace mha2mla {
namespace {

using Sentence = std::vector<std::int32_t>;  // its words, by number

class Words {
public:
    std::int32_t number(const std::u32string& word) {
        return numbers_.emplace(word, static_cast<std::int32_t>(numbers_.size())).first->second;
    }

private:
    std::map<std::u32string, std::int32_t> numbers_;
};

/// A sentence of white space alone has one word, the empty one.
std::vector<Sentence> sentences(std::u32string_view text, Words& words) {
    std::vector<Sentence> result;
    for (const auto& piece : python::split_at(text, U'.')) {
        if (piece.empty()) continue;
        Sentence sentence;
        for (const auto& word : python::split(piece)) sentence.push_back(words.number(word));
        if (sentence.empty()) sentence.push_back(words.number({}));
        result.push_back(std::move(sentence));
    }
    return result;
}

std::set<std::int32_t> words_of(const std::vector<Sentence>& text) {
    std::set<std::int32_t> words;
    for (const auto& sentence : text) words.insert(sentence.begin(), sentence.end());
    return words;
}

std::size_t count_of(const std::vector<Sentence>& text) {
    std::size_t count = 0;
    for (const auto& sentence : text) count += sentence.size();
    return count;
}

/// Adds the words of one longest common subsequence. Of several it is that which is found from the end, where the last
/// word of `reference` is left out only if that keeps more than leaving out the last of `prediction`.
void add_common(const Sentence& reference, const Sentence& prediction, std::set<std::int32_t>& words) {
    const std::size_t columns = prediction.size() + 1;
    std::vector<std::int32_t> above(columns), row(columns);  // lengths for the first i and j words
    std::vector<bool> leaves_reference((reference.size() + 1) * columns);
    for (std::size_t i = 1; i <= reference.size(); ++i) {
        for (std::size_t j = 1; j < columns; ++j) {
            const bool equal = reference[i - 1] == prediction[j - 1];
            row[j] = equal ? above[j - 1] + 1 : std::max(above[j], row[j - 1]);
            leaves_reference[i * columns + j] = above[j] > row[j - 1];
        }
        above.swap(row);
    }
    for (std::size_t i = reference.size(), j = prediction.size(); i > 0 && j > 0;) {
        if (reference[i - 1] == prediction[j - 1]) {
            words.insert(reference[i - 1]);
            --i;
            --j;
        } else if (leaves_reference[i * columns + j]) {
            --i;
        } else {
            --j;
        }
    }
}

}  // namespace

double rouge_l(std::u32string_view prediction, std::u32string_view reference) {
    Words words;
    const auto predicted = sentences(prediction, words);
    const auto wanted = sentences(reference, words);
    if (predicted.empty() || wanted.empty()) return 0;
    check_work(count_of(predicted), count_of(wanted), "words");
    std::set<std::int32_t> common;
    for (const auto& sentence : wanted) {
        for (const auto& other : predicted) add_common(sentence, other, common);
    }
    const auto size = static_cast<double>(common.size());
    const double precision = size / static_cast<double>(words_of(predicted).size());
    const double recall = size / static_cast<double>(words_of(wanted).size());
    constexpr double kTiny = 1e-8;
    return 2.0 * ((precision * recall) / (precision + recall + kTiny));
}

}  // namespace mha2mla
